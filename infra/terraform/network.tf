# A virtual network with a subnet for the app's instances and one for private
# endpoints; private endpoints for what the app speaks to, and the names by which it
# finds them. Subnets, zones and NAT of yours take the place of these.
locals {
  makes_network      = var.vnet_enabled && var.app_subnet_id == ""
  app_subnet_id      = local.makes_network ? one(azurerm_subnet.app[*].id) : var.vnet_enabled ? var.app_subnet_id : ""
  endpoint_subnet_id = local.makes_network ? one(azurerm_subnet.endpoints[*].id) : var.endpoint_subnet_id
  zone_ids = { for group, e in local.endpoints : group => (
    var.private_dns_zones == "" ? one([for name, z in azurerm_private_dns_zone.zone : z.id if name == group]) : "${var.private_dns_zones}/providers/Microsoft.Network/privateDnsZones/${e.zone}"
  ) if var.private_dns_zones != "policy" }

  all_endpoints = {
    blob      = { zone = "privatelink.blob.core.windows.net", target = azurerm_storage_account.host.id, wanted = var.vnet_enabled }
    vault     = { zone = "privatelink.vaultcore.azure.net", target = azurerm_key_vault.vault.id, wanted = var.vnet_enabled }
    namespace = { zone = "privatelink.servicebus.windows.net", target = azurerm_servicebus_namespace.bus.id, wanted = local.bus_in_network }
  }
  endpoints = { for group, endpoint in local.all_endpoints : group => endpoint if endpoint.wanted }
}

resource "azurerm_network_security_group" "rules" {
  count = local.makes_network ? 1 : 0

  name                = local.name.networkSecurityGroup
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags
}

resource "azurerm_virtual_network" "network" {
  count = local.makes_network ? 1 : 0

  name                = local.name.virtualNetwork
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags
  address_space       = [var.vnet_address_prefix]
}

resource "azurerm_subnet" "app" {
  count = local.makes_network ? 1 : 0

  name                 = "app"
  resource_group_name  = local.group.name
  virtual_network_name = azurerm_virtual_network.network[0].name
  address_prefixes     = [cidrsubnet(var.vnet_address_prefix, 26 - local.prefix_length, 0)]

  delegation {
    name = "functions"

    service_delegation {
      name    = "Microsoft.App/environments"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_subnet" "endpoints" {
  count = local.makes_network ? 1 : 0

  name                              = "endpoints"
  resource_group_name               = local.group.name
  virtual_network_name              = azurerm_virtual_network.network[0].name
  address_prefixes                  = [cidrsubnet(var.vnet_address_prefix, 26 - local.prefix_length, 1)]
  private_endpoint_network_policies = "Enabled"
}

locals {
  prefix_length = tonumber(split("/", var.vnet_address_prefix)[1])
  subnets       = local.makes_network ? { app = azurerm_subnet.app[0].id, endpoints = azurerm_subnet.endpoints[0].id } : {}
}

resource "azurerm_subnet_network_security_group_association" "rules" {
  for_each = local.subnets

  subnet_id                 = each.value
  network_security_group_id = azurerm_network_security_group.rules[0].id
}

resource "azurerm_private_dns_zone" "zone" {
  for_each = { for group, e in local.endpoints : group => e if var.private_dns_zones == "" }

  name                = each.value.zone
  resource_group_name = local.group.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "link" {
  for_each = { for group, e in local.endpoints : group => e if var.private_dns_zones == "" }

  name                 = "patrol"
  private_dns_zone_id  = azurerm_private_dns_zone.zone[each.key].id
  virtual_network_id   = split("/subnets/", local.endpoint_subnet_id)[0]
  registration_enabled = false
  tags                 = local.tags
}

resource "azurerm_private_endpoint" "endpoint" {
  for_each = local.endpoints

  name                = "${local.name.privateEndpoint}-${each.key}"
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags
  subnet_id           = local.endpoint_subnet_id

  private_service_connection {
    name                           = each.key
    private_connection_resource_id = each.value.target
    subresource_names              = [each.key]
    is_manual_connection           = false
  }

  dynamic "private_dns_zone_group" {
    for_each = [for group, id in local.zone_ids : id if group == each.key]

    content {
      name                 = "default"
      private_dns_zone_ids = [private_dns_zone_group.value]
    }
  }

  # A name that leads nowhere yet is worse than none. One subnet takes one change at a
  # time.
  depends_on = [
    azurerm_private_dns_zone_virtual_network_link.link,
    azurerm_subnet_network_security_group_association.rules,
  ]
}

# One address from which the app calls.
resource "azurerm_public_ip" "egress" {
  count = local.makes_network && var.nat_gateway_enabled ? 1 : 0

  name                = local.name.publicAddress
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags
  sku                 = "Standard"
  allocation_method   = "Static"
  zones               = var.zone_redundant ? ["1", "2", "3"] : null
}

resource "azurerm_nat_gateway" "egress" {
  count = local.makes_network && var.nat_gateway_enabled ? 1 : 0

  name                = local.name.natGateway
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags
  sku_name            = "Standard"
}

resource "azurerm_nat_gateway_public_ip_association" "egress" {
  count = local.makes_network && var.nat_gateway_enabled ? 1 : 0

  nat_gateway_id       = azurerm_nat_gateway.egress[0].id
  public_ip_address_id = azurerm_public_ip.egress[0].id
}

resource "azurerm_subnet_nat_gateway_association" "egress" {
  count = local.makes_network && (var.nat_gateway_enabled || var.nat_gateway_id != "") ? 1 : 0

  subnet_id      = azurerm_subnet.app[0].id
  nat_gateway_id = var.nat_gateway_enabled ? azurerm_nat_gateway.egress[0].id : var.nat_gateway_id
}
