# The vault's events, to the queue of hints. A vault has one system topic; patrol's
# vault is its own, so this is it.
resource "azurerm_eventgrid_system_topic" "vault" {
  name                = local.name.eventGridSystemTopic
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags
  source_resource_id  = azurerm_key_vault.vault.id
  topic_type          = "Microsoft.KeyVault.vaults"

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.event.id]
  }
}

resource "azurerm_eventgrid_system_topic_event_subscription" "vault" {
  count = var.subscribe_to_vault ? 1 : 0

  name                  = "vault-events"
  resource_group_name   = local.group.name
  system_topic          = azurerm_eventgrid_system_topic.vault.name
  event_delivery_schema = "EventGridSchema"
  service_bus_queue_id  = azurerm_servicebus_queue.vault_events.id

  included_event_types = [
    "Microsoft.KeyVault.SecretNearExpiry",
    "Microsoft.KeyVault.SecretExpired",
    "Microsoft.KeyVault.SecretNewVersionCreated",
  ]

  delivery_identity {
    type                   = "UserAssigned"
    user_assigned_identity = azurerm_user_assigned_identity.event.id
  }

  retry_policy {
    max_delivery_attempts = 30
    event_time_to_live    = 1440
  }

  # The identity's role on the queue must exist before.
  depends_on = [azurerm_role_assignment.role]
}

resource "azurerm_monitor_diagnostic_setting" "events" {
  name                       = "all"
  target_resource_id         = azurerm_eventgrid_system_topic.vault.id
  log_analytics_workspace_id = local.workspace_id

  enabled_log {
    category_group = "allLogs"
  }
}
