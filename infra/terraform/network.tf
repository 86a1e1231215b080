# A virtual network with a subnet for the app's instances and one for private
# endpoints; private endpoints for what the app speaks to, and the names by which it
# finds them.
locals {
  all_endpoints = {
    blob      = { zone = "privatelink.blob.core.windows.net", target = azurerm_storage_account.host.id, wanted = var.vnet_enabled }
    vault     = { zone = "privatelink.vaultcore.azure.net", target = azurerm_key_vault.vault.id, wanted = var.vnet_enabled }
    namespace = { zone = "privatelink.servicebus.windows.net", target = azurerm_servicebus_namespace.bus.id, wanted = local.bus_in_network }
  }
  endpoints = { for group, endpoint in local.all_endpoints : group => endpoint if endpoint.wanted }
}

resource "azurerm_network_security_group" "rules" {
  count = var.vnet_enabled ? 1 : 0

  name                = "${local.prefix.networkSecurityGroup}${local.token}"
  resource_group_name = azurerm_resource_group.group.name
  location            = var.location
  tags                = local.tags
}

resource "azurerm_virtual_network" "network" {
  count = var.vnet_enabled ? 1 : 0

  name                = "${local.prefix.virtualNetwork}${local.token}"
  resource_group_name = azurerm_resource_group.group.name
  location            = var.location
  tags                = local.tags
  address_space       = [var.vnet_address_prefix]
}

resource "azurerm_subnet" "app" {
  count = var.vnet_enabled ? 1 : 0

  name                 = "app"
  resource_group_name  = azurerm_resource_group.group.name
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
  count = var.vnet_enabled ? 1 : 0

  name                              = "endpoints"
  resource_group_name               = azurerm_resource_group.group.name
  virtual_network_name              = azurerm_virtual_network.network[0].name
  address_prefixes                  = [cidrsubnet(var.vnet_address_prefix, 26 - local.prefix_length, 1)]
  private_endpoint_network_policies = "Enabled"
}

locals {
  prefix_length = tonumber(split("/", var.vnet_address_prefix)[1])
  subnets       = var.vnet_enabled ? { app = azurerm_subnet.app[0].id, endpoints = azurerm_subnet.endpoints[0].id } : {}
}

resource "azurerm_subnet_network_security_group_association" "rules" {
  for_each = local.subnets

  subnet_id                 = each.value
  network_security_group_id = azurerm_network_security_group.rules[0].id
}

resource "azurerm_private_dns_zone" "zone" {
  for_each = local.endpoints

  name                = each.value.zone
  resource_group_name = azurerm_resource_group.group.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "link" {
  for_each = local.endpoints

  name                 = "patrol"
  private_dns_zone_id  = azurerm_private_dns_zone.zone[each.key].id
  virtual_network_id   = azurerm_virtual_network.network[0].id
  registration_enabled = false
  tags                 = local.tags
}

resource "azurerm_private_endpoint" "endpoint" {
  for_each = local.endpoints

  name                = "${local.prefix.privateEndpoint}${local.token}-${each.key}"
  resource_group_name = azurerm_resource_group.group.name
  location            = var.location
  tags                = local.tags
  subnet_id           = azurerm_subnet.endpoints[0].id

  private_service_connection {
    name                           = each.key
    private_connection_resource_id = each.value.target
    subresource_names              = [each.key]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "default"
    private_dns_zone_ids = [azurerm_private_dns_zone.zone[each.key].id]
  }

  # A name that leads nowhere yet is worse than none. One subnet takes one change at a
  # time.
  depends_on = [
    azurerm_private_dns_zone_virtual_network_link.link,
    azurerm_subnet_network_security_group_association.rules,
  ]
}
