# patrol on Azure: one resource group with all that the app needs. Nothing in it has
# a key or a password: every connection is by managed identity. What infra/main.bicep
# makes, under the same names except for the token in them.

locals {
  prefix = jsondecode(file("${path.module}/../abbreviations.json"))
  token  = substr(sha256("${var.subscription_id}/${var.environment_name}/${var.location}"), 0, 13)
  tags   = { azd-env-name = var.environment_name }

  command_queue      = "pat-commands"
  vault_event_queue  = "vault-events"
  event_topic        = "pat-events"
  event_subscription = "all"
  state_container    = "patrol-state"

  vault_name = "${local.prefix.keyVault}${local.token}"
  bus_name   = "${local.prefix.serviceBus}${local.token}"

  # Service Bus has private endpoints in its Premium tier only.
  bus_in_network = var.vnet_enabled && var.service_bus_sku == "Premium"
}

data "azurerm_client_config" "current" {}

resource "azurerm_resource_group" "group" {
  name     = "${local.prefix.resourceGroup}${var.environment_name}"
  location = var.location
  tags     = local.tags
}

# Two identities: the app's, and the one by which Event Grid delivers.
resource "azurerm_user_assigned_identity" "app" {
  name                = "${local.prefix.managedIdentity}${local.token}"
  resource_group_name = azurerm_resource_group.group.name
  location            = var.location
  tags                = local.tags
}

resource "azurerm_user_assigned_identity" "event" {
  name                = "${local.prefix.managedIdentity}events-${local.token}"
  resource_group_name = azurerm_resource_group.group.name
  location            = var.location
  tags                = local.tags
}

module "site" {
  source = "./modules/site"

  resource_group_id          = azurerm_resource_group.group.id
  location                   = var.location
  tags                       = local.tags
  name                       = "${local.prefix.functionApp}${local.token}"
  plan_name                  = "${local.prefix.functionPlan}${local.token}"
  identity                   = { id = azurerm_user_assigned_identity.app.id, client_id = azurerm_user_assigned_identity.app.client_id }
  storage_name               = azurerm_storage_account.host.name
  deployment_container_url   = "${azurerm_storage_account.host.primary_blob_endpoint}${azurerm_storage_container.deployment.name}"
  state_url                  = "${azurerm_storage_account.host.primary_blob_endpoint}${azurerm_storage_container.state.name}"
  insights_connection_string = nonsensitive(azurerm_application_insights.insights.connection_string)
  key_vault_url              = "https://${azurerm_key_vault.vault.name}.vault.azure.net"
  subnet_id                  = var.vnet_enabled ? azurerm_subnet.app[0].id : ""
  instance_memory_mb         = var.instance_memory_mb
  maximum_instance_count     = var.maximum_instance_count
  always_ready_http          = var.always_ready_http
  check_schedule             = var.check_schedule == "" ? "0 0 */6 * * *" : var.check_schedule
  log_level                  = var.log_level
  service_bus_transport      = var.service_bus_transport
  manifest                   = var.manifest
  public_url                 = var.public_url
  azure_devops_url           = var.azure_devops_url
  azure_devops_vssps_url     = var.azure_devops_vssps_url
  otlp_endpoint              = var.otlp_endpoint

  bus = {
    host              = "${azurerm_servicebus_namespace.bus.name}.servicebus.windows.net"
    command_queue     = azurerm_servicebus_queue.commands.name
    vault_event_queue = azurerm_servicebus_queue.vault_events.name
    event_topic       = azurerm_servicebus_topic.events.name
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
