# Every role that patrol needs, each on the smallest thing that it can be given for.
locals {
  role_ids = {
    storage_blob_data_owner       = "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"
    storage_blob_data_contributor = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
    key_vault_secrets_officer     = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
    service_bus_data_owner        = "090c5cfd-751d-490a-894a-3ce6f1109419"
    service_bus_data_sender       = "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39"
    monitoring_metrics_publisher  = "3913510d-42f4-4e42-8a64-420c390055eb"
  }

  app   = azurerm_user_assigned_identity.app.principal_id
  event = azurerm_user_assigned_identity.event.principal_id

  roles = {
    # The host keeps its keys, its leases and the app's package in blobs.
    app_on_storage = { who = local.app, role = "storage_blob_data_owner", scope = azurerm_storage_account.host.id }
    # What the app itself needs, whatever the host is given, and in whichever account.
    app_on_state = { who = local.app, role = "storage_blob_data_contributor", scope = azurerm_storage_container.state.id }
    app_on_vault = { who = local.app, role = "key_vault_secrets_officer", scope = azurerm_key_vault.vault.id }
    # The platform wakes an app that rests when its queue has something to do. Only who may manage a queue is told how much
    # that is; without that it looks at the first messages alone, and takes a scheduled one for nothing.
    app_owns_commands             = { who = local.app, role = "service_bus_data_owner", scope = azurerm_servicebus_queue.commands.id }
    app_owns_vault_events         = { who = local.app, role = "service_bus_data_owner", scope = azurerm_servicebus_queue.vault_events.id }
    app_owns_confirmations        = { who = local.app, role = "service_bus_data_owner", scope = azurerm_servicebus_queue.confirmations.id }
    app_publishes_events          = { who = local.app, role = "service_bus_data_sender", scope = azurerm_servicebus_topic.events.id }
    app_on_insights               = { who = local.app, role = "monitoring_metrics_publisher", scope = azurerm_application_insights.insights.id }
    event_grid_sends_vault_events = { who = local.event, role = "service_bus_data_sender", scope = azurerm_servicebus_queue.vault_events.id }
  }

  # Consumers may say that they have switched, and nothing else.
  consumers = { for id in var.confirmation_senders : "consumer_${id}" => {
    who = id, role = "service_bus_data_sender", scope = azurerm_servicebus_queue.confirmations.id
  } }
}

# The name is made from what is assigned: a second run finds the first one's.
resource "azurerm_role_assignment" "role" {
  for_each = { for name, role in merge(local.roles, local.consumers) : name => role if var.assign_roles }

  name               = uuidv5("url", "${each.value.scope}/${each.value.who}/${local.role_ids[each.value.role]}")
  scope              = each.value.scope
  principal_id       = each.value.who
  principal_type     = "ServicePrincipal"
  role_definition_id = "/subscriptions/${var.subscription_id}/providers/Microsoft.Authorization/roleDefinitions/${local.role_ids[each.value.role]}"
}
