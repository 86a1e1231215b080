# patrol on Azure: one resource group with all that the app needs. Nothing in it has
# a key or a password: every connection is by managed identity. What infra/main.bicep
# makes, under the same names except for the token in them.

locals {
  prefix = jsondecode(file("${path.module}/../abbreviations.json"))
  token  = substr(sha256("${var.subscription_id}/${var.environment_name}/${var.location}"), 0, 13)
  tags   = merge(var.tags, { azd-env-name = var.environment_name })

  command_queue      = "pat-commands"
  vault_event_queue  = "vault-events"
  confirmation_queue = "pat-confirmations"
  event_topic        = "pat-events"
  event_subscription = "all"
  state_container    = "patrol-state"

  # Names of yours come first.
  name = merge(
    { for kind, prefix in local.prefix : kind => "${prefix}${local.token}" },
    { eventIdentity = "${local.prefix.managedIdentity}events-${local.token}", resourceGroup = "${local.prefix.resourceGroup}${var.environment_name}" },
    var.names,
  )

  vault_name = local.name.keyVault
  bus_name   = local.name.serviceBus

  # The group that is made, or the one that is there.
  group = {
    id   = one(concat(azurerm_resource_group.group[*].id, data.azurerm_resource_group.group[*].id))
    name = one(concat(azurerm_resource_group.group[*].name, data.azurerm_resource_group.group[*].name))
  }

  # Alerts ask for the last two sweeps.
  schedule     = var.check_schedule == "" ? "0 0 */6 * * *" : var.check_schedule
  hour         = element(compact(split(" ", local.schedule)), 2)
  sweep_hours  = local.hour == "*" ? 1 : startswith(local.hour, "*/") ? tonumber(substr(local.hour, 2, -1)) : 24
  sweep_window = local.sweep_hours <= 3 ? "PT6H" : local.sweep_hours <= 12 ? "P1D" : "P2D"

  # Service Bus has private endpoints in its Premium tier only.
  bus_in_network = var.vnet_enabled && var.service_bus_sku == "Premium"
}

data "azurerm_client_config" "current" {}

data "azurerm_resource_group" "group" {
  count = var.resource_group == "" ? 0 : 1

  name = var.resource_group
}

resource "azurerm_resource_group" "group" {
  count = var.resource_group == "" ? 1 : 0

  name     = local.name.resourceGroup
  location = var.location
  tags     = local.tags
}

# Two identities: the app's, and the one by which Event Grid delivers.
resource "azurerm_user_assigned_identity" "app" {
  name                = local.name.managedIdentity
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags

  lifecycle {
    precondition {
      condition     = contains(["", data.azurerm_client_config.current.tenant_id], lower(var.entra_tenant_id)) || var.entra_client_credential != "managed-identity"
      error_message = "entra_tenant_id is another tenant than the subscription's: a managed identity proves itself in its own tenant only; use a certificate."
    }
  }
}

resource "azurerm_user_assigned_identity" "event" {
  name                = local.name.eventIdentity
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags
}

module "site" {
  source = "./modules/site"

  resource_group_id          = local.group.id
  location                   = var.location
  tags                       = local.tags
  name                       = local.name.functionApp
  plan_name                  = local.name.functionPlan
  identity                   = { id = azurerm_user_assigned_identity.app.id, client_id = azurerm_user_assigned_identity.app.client_id }
  storage_name               = azurerm_storage_account.host.name
  deployment_container_url   = "${azurerm_storage_account.host.primary_blob_endpoint}${azurerm_storage_container.deployment.name}"
  state_url                  = "${azurerm_storage_account.host.primary_blob_endpoint}${azurerm_storage_container.state.name}"
  insights_connection_string = nonsensitive(azurerm_application_insights.insights.connection_string)
  key_vault_url              = "https://${azurerm_key_vault.vault.name}.vault.azure.net"
  subnet_id                  = local.app_subnet_id
  instance_memory_mb         = var.instance_memory_mb
  maximum_instance_count     = var.maximum_instance_count
  always_ready_http          = var.always_ready_http
  always_ready_reconcile     = var.always_ready_reconcile
  zone_redundant             = var.zone_redundant
  extra_settings             = var.extra_settings
  check_schedule             = local.schedule
  log_level                  = var.log_level
  service_bus_transport      = var.service_bus_transport
  manifest                   = var.manifest
  public_url                 = var.public_url
  azure_devops_url           = var.azure_devops_url
  azure_devops_vssps_url     = var.azure_devops_vssps_url
  otlp_endpoint              = var.otlp_endpoint

  bus = {
    host               = "${azurerm_servicebus_namespace.bus.name}.servicebus.windows.net"
    command_queue      = azurerm_servicebus_queue.commands.name
    vault_event_queue  = azurerm_servicebus_queue.vault_events.name
    confirmation_queue = azurerm_servicebus_queue.confirmations.name
    event_topic        = azurerm_servicebus_topic.events.name
  }

  entra = {
    tenant_id         = var.entra_tenant_id == "" ? data.azurerm_client_config.current.tenant_id : var.entra_tenant_id
    client_id         = var.entra_client_id
    client_credential = var.entra_client_credential
    certificate       = var.entra_certificate
  }

  authentication = {
    enabled                = var.authentication_enabled
    unauthenticated_action = var.unauthenticated_action
  }

  # The host reads its storage as soon as it starts: by its role, and in a network by
  # its private endpoint. One subnet takes one change at a time.
  depends_on = [
    azurerm_role_assignment.role,
    azurerm_private_endpoint.endpoint,
    azurerm_subnet_network_security_group_association.rules,
  ]
}

# What must not be lost by a slip of the hand.
resource "azurerm_management_lock" "lock" {
  for_each = { for name, id in {
    identity   = azurerm_user_assigned_identity.app.id
    storage    = azurerm_storage_account.host.id
    vault      = azurerm_key_vault.vault.id
    serviceBus = azurerm_servicebus_namespace.bus.id
  } : name => id if var.lock_enabled }

  name       = "patrol"
  scope      = each.value
  lock_level = "CanNotDelete"
}
