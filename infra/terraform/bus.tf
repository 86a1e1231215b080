# Commands in, the vault's events in, patrol's events out.
resource "azurerm_servicebus_namespace" "bus" {
  name                          = local.bus_name
  resource_group_name           = local.group.name
  location                      = var.location
  tags                          = local.tags
  sku                           = var.service_bus_sku
  capacity                      = var.service_bus_sku == "Premium" ? 1 : 0
  premium_messaging_partitions  = var.service_bus_sku == "Premium" ? 1 : 0
  local_auth_enabled            = false
  minimum_tls_version           = "1.2"
  public_network_access_enabled = !local.bus_in_network

  # Event Grid does not deliver over a private endpoint; it is a trusted service.
  dynamic "network_rule_set" {
    for_each = local.bus_in_network ? [true] : []

    content {
      default_action                = "Deny"
      public_network_access_enabled = false
      trusted_services_allowed      = true
    }
  }
}

# Sessions: one PAT is never worked on twice at once. Duplicate detection: a repeated
# command is dropped. Neither can be changed later.
resource "azurerm_servicebus_queue" "commands" {
  name                                    = local.command_queue
  namespace_id                            = azurerm_servicebus_namespace.bus.id
  requires_session                        = true
  requires_duplicate_detection            = true
  duplicate_detection_history_time_window = "PT10M"
  lock_duration                           = "PT5M"
  max_delivery_count                      = 10
}

# No sessions: Event Grid cannot deliver to a queue that has them. It keeps the
# message id over its own redeliveries.
resource "azurerm_servicebus_queue" "vault_events" {
  name                                    = local.vault_event_queue
  namespace_id                            = azurerm_servicebus_namespace.bus.id
  requires_session                        = false
  requires_duplicate_detection            = true
  duplicate_detection_history_time_window = "PT10M"
  lock_duration                           = "PT5M"
  max_delivery_count                      = 10
}

# Consumers say here that they have switched. No duplicate detection: a forged message
# must not shut a right one out.
resource "azurerm_servicebus_queue" "confirmations" {
  name                         = local.confirmation_queue
  namespace_id                 = azurerm_servicebus_namespace.bus.id
  requires_session             = false
  requires_duplicate_detection = false
  lock_duration                = "PT5M"
  max_delivery_count           = 10
}

# Batched operations are the service's default; azurerm's, for topic and subscription,
# is to switch them off.
resource "azurerm_servicebus_topic" "events" {
  name                         = local.event_topic
  namespace_id                 = azurerm_servicebus_namespace.bus.id
  requires_duplicate_detection = false
  batched_operations_enabled   = true
}

# Everything, for whoever comes first. What nobody reads ends after two weeks, or it
# would fill the topic.
resource "azurerm_servicebus_subscription" "all" {
  name                                 = local.event_subscription
  topic_id                             = azurerm_servicebus_topic.events.id
  requires_session                     = false
  lock_duration                        = "PT1M"
  max_delivery_count                   = 10
  default_message_ttl                  = "P14D"
  dead_lettering_on_message_expiration = false
  batched_operations_enabled           = true
}

resource "azurerm_monitor_diagnostic_setting" "bus" {
  name                       = "all"
  target_resource_id         = azurerm_servicebus_namespace.bus.id
  log_analytics_workspace_id = local.workspace_id

  enabled_log {
    category_group = "allLogs"
  }
}
