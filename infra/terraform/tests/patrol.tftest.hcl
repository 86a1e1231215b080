# The whole deployment: azurerm is mocked (it still checks arguments), azapi is not.
# Mocks give their values at plan, so that azapi knows the bodies that it checks.
mock_provider "azurerm" {
  override_during = plan

  mock_data "azurerm_client_config" {
    defaults = {
      tenant_id       = "00000000-0000-0000-0000-000000000002"
      subscription_id = "00000000-0000-0000-0000-000000000001"
    }
  }

  mock_data "azurerm_resource_group" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/payments" }
  }

  mock_resource "azurerm_resource_group" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test" }
  }

  mock_resource "azurerm_storage_account" {
    defaults = {
      id                    = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Storage/storageAccounts/sttest"
      primary_blob_endpoint = "https://sttest.blob.core.windows.net/"
    }
  }

  mock_resource "azurerm_key_vault" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.KeyVault/vaults/kv-test" }
  }

  mock_resource "azurerm_servicebus_namespace" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.ServiceBus/namespaces/sbns-test" }
  }

  mock_resource "azurerm_servicebus_topic" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.ServiceBus/namespaces/sbns-test/topics/pat-events" }
  }

  mock_resource "azurerm_eventgrid_system_topic" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.EventGrid/systemTopics/evgst-test" }
  }

  mock_resource "azurerm_log_analytics_workspace" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.OperationalInsights/workspaces/log-test" }
  }

  mock_resource "azurerm_application_insights" {
    defaults = {
      id                = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Insights/components/appi-test"
      connection_string = "InstrumentationKey=00000000-0000-0000-0000-000000000004"
    }
  }

  mock_resource "azurerm_monitor_action_group" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Insights/actionGroups/ag-test" }
  }

  mock_resource "azurerm_network_security_group" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Network/networkSecurityGroups/nsg-test" }
  }

  mock_resource "azurerm_virtual_network" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Network/virtualNetworks/vnet-test" }
  }

  mock_resource "azurerm_private_dns_zone" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Network/privateDnsZones/privatelink.test" }
  }
}

provider "azapi" {
  subscription_id = "00000000-0000-0000-0000-000000000001"
  tenant_id       = "00000000-0000-0000-0000-000000000002"
  client_id       = "00000000-0000-0000-0000-000000000003"
  client_secret   = "not used"
  use_cli         = false
  use_msi         = false
}

override_resource {
  target          = azurerm_user_assigned_identity.app
  override_during = plan
  values = {
    id           = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-test"
    client_id    = "00000000-0000-0000-0000-00000000000a"
    principal_id = "00000000-0000-0000-0000-00000000000b"
  }
}

override_resource {
  target          = azurerm_user_assigned_identity.event
  override_during = plan
  values = {
    id           = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-events-test"
    client_id    = "00000000-0000-0000-0000-00000000000c"
    principal_id = "00000000-0000-0000-0000-00000000000d"
  }
}

override_resource {
  target          = azurerm_servicebus_queue.commands
  override_during = plan
  values          = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.ServiceBus/namespaces/sbns-test/queues/pat-commands" }
}

override_resource {
  target          = azurerm_servicebus_queue.vault_events
  override_during = plan
  values          = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.ServiceBus/namespaces/sbns-test/queues/vault-events" }
}

override_resource {
  target          = azurerm_storage_container.state
  override_during = plan
  values          = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Storage/storageAccounts/sttest/blobServices/default/containers/patrol-state" }
}

override_resource {
  target          = azurerm_servicebus_queue.confirmations
  override_during = plan
  values          = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.ServiceBus/namespaces/sbns-test/queues/pat-confirmations" }
}

override_resource {
  target          = azurerm_nat_gateway.egress
  override_during = plan
  values          = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Network/natGateways/ng-test" }
}

override_resource {
  target          = azurerm_public_ip.egress
  override_during = plan
  values = {
    id         = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Network/publicIPAddresses/pip-test"
    ip_address = "203.0.113.9"
  }
}

override_resource {
  target          = azurerm_subnet.app
  override_during = plan
  values          = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Network/virtualNetworks/vnet-test/subnets/app" }
}

override_resource {
  target          = azurerm_subnet.endpoints
  override_during = plan
  values          = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Network/virtualNetworks/vnet-test/subnets/endpoints" }
}

variables {
  subscription_id  = "00000000-0000-0000-0000-000000000001"
  environment_name = "test"
  location         = "westeurope"
}

run "by_default" {
  command = plan

  # Nothing has a key or a password.
  assert {
    condition = (
      !azurerm_storage_account.host.shared_access_key_enabled &&
      !azurerm_storage_account.host.allow_nested_items_to_be_public &&
      !azurerm_servicebus_namespace.bus.local_auth_enabled &&
      !azurerm_application_insights.insights.local_authentication_enabled &&
      !azurerm_log_analytics_workspace.workspace[0].local_authentication_enabled &&
      azurerm_key_vault.vault.rbac_authorization_enabled
    )
    error_message = "Every connection must be by identity."
  }

  assert {
    condition     = azurerm_key_vault.vault.purge_protection_enabled && azurerm_key_vault.vault.soft_delete_retention_days == 90
    error_message = "What is deleted from the vault must be recoverable."
  }

  # As the app and the Functions host expect them.
  assert {
    condition = { for q in [azurerm_servicebus_queue.commands, azurerm_servicebus_queue.vault_events, azurerm_servicebus_queue.confirmations] : q.name => [
      q.requires_session, q.requires_duplicate_detection, q.lock_duration, q.max_delivery_count,
      ] } == {
      pat-commands      = [true, true, "PT5M", 10]
      pat-confirmations = [false, false, "PT5M", 10]
      vault-events      = [false, true, "PT5M", 10]
    }
    error_message = "The queues must be as the app needs them; most of this cannot be changed later."
  }

  assert {
    condition     = azurerm_servicebus_topic.events.name == "pat-events" && !azurerm_servicebus_topic.events.requires_duplicate_detection && azurerm_servicebus_topic.events.batched_operations_enabled
    error_message = "The topic must be as the app needs it."
  }

  assert {
    condition     = azurerm_servicebus_subscription.all.name == "all" && !azurerm_servicebus_subscription.all.requires_session && azurerm_servicebus_subscription.all.default_message_ttl == "P14D"
    error_message = "What nobody reads must end, or it fills the topic."
  }

  # Who may do what, and nothing besides.
  assert {
    condition = { for name, r in azurerm_role_assignment.role : name => "${substr(r.principal_id, -1, 1)} ${split("/", r.role_definition_id)[6]} ${element(split("/", r.scope), -1)}" } == {
      app_on_insights               = "b 3913510d-42f4-4e42-8a64-420c390055eb appi-test"
      app_on_storage                = "b b7e6dc6d-f1e8-4753-8033-0f276bb0955b sttest"
      app_on_vault                  = "b b86a8fe4-44ce-4948-aee5-eccb2c155cd7 kv-test"
      app_owns_commands             = "b 090c5cfd-751d-490a-894a-3ce6f1109419 pat-commands"
      app_owns_confirmations        = "b 090c5cfd-751d-490a-894a-3ce6f1109419 pat-confirmations"
      app_owns_vault_events         = "b 090c5cfd-751d-490a-894a-3ce6f1109419 vault-events"
      app_publishes_events          = "b 69a216fc-b8fb-44d8-bc22-1f3c2cd27a39 pat-events"
      event_grid_sends_vault_events = "d 69a216fc-b8fb-44d8-bc22-1f3c2cd27a39 vault-events"
    }
    error_message = "The roles must be these, each on the smallest thing."
  }

  assert {
    condition     = length(distinct([for r in azurerm_role_assignment.role : r.name])) == 9 && alltrue([for r in azurerm_role_assignment.role : r.principal_type == "ServicePrincipal"])
    error_message = "Every role's assignment must have a name of its own, and say whom it is for."
  }

  assert {
    condition     = azurerm_role_assignment.role["app_on_vault"].name == uuidv5("url", "${azurerm_key_vault.vault.id}/00000000-0000-0000-0000-00000000000b/b86a8fe4-44ce-4948-aee5-eccb2c155cd7")
    error_message = "A role's assignment must be named by what it assigns."
  }

  assert {
    condition     = azurerm_eventgrid_system_topic.vault.source_resource_id == azurerm_key_vault.vault.id && azurerm_eventgrid_system_topic_event_subscription.vault[0].service_bus_queue_id == azurerm_servicebus_queue.vault_events.id
    error_message = "The vault's events must reach their queue."
  }

  assert {
    condition     = azurerm_eventgrid_system_topic_event_subscription.vault[0].delivery_identity[0].user_assigned_identity == azurerm_user_assigned_identity.event.id
    error_message = "Event Grid must deliver by its identity."
  }

  assert {
    condition     = keys(azurerm_monitor_scheduled_query_rules_alert_v2.alert) == ["check-incomplete", "ends-soon", "expiring", "no-sweep", "rotation-failed", "sign-in-expiring", "sign-in-required"] && alltrue([for a in azurerm_monitor_scheduled_query_rules_alert_v2.alert : length(trimspace(a.criteria[0].query)) > 0])
    error_message = "Every alert must have its query."
  }

  assert {
    condition     = { for name, a in azurerm_monitor_metric_alert.alert : name => one(a.criteria[*].metric_name) } == { dead-letters = "DeadletteredMessages", event-delivery = "DeliveryAttemptFailCount", waiting-messages = "ActiveMessages" }
    error_message = "Dead letters and lost events must be told of."
  }

  assert {
    condition     = length(azurerm_monitor_action_group.people[0].email_receiver) == 0
    error_message = "Nobody is told unless named."
  }

  # The app stands still, unseen, if its queue does not wake it.
  assert {
    condition = (
      azurerm_monitor_metric_alert.alert["waiting-messages"].window_size == "PT30M" &&
      one(azurerm_monitor_metric_alert.alert["waiting-messages"].criteria[*].aggregation) == "Minimum" &&
      toset(one(azurerm_monitor_metric_alert.alert["waiting-messages"].criteria[*].dimension[0].values)) == toset(["pat-commands", "vault-events", "pat-confirmations"])
    )
    error_message = "Messages that wait for half an hour must be told of, in each queue."
  }

  # An alert lasts as long as its trouble, and says what to do.
  assert {
    condition     = alltrue([for a in azurerm_monitor_scheduled_query_rules_alert_v2.alert : a.window_duration == "P1D" && strcontains(a.criteria[0].query, "msg == 'sweep done'") && !strcontains(a.criteria[0].query, "{insights}")])
    error_message = "Alerts must ask for what the last two sweeps have found."
  }

  assert {
    condition     = alltrue([for name, a in azurerm_monitor_scheduled_query_rules_alert_v2.alert : endswith(a.action[0].custom_properties.runbook, "docs/operations.md#${name}") && a.action[0].custom_properties.dashboard == output.PATROL_DASHBOARD_URL])
    error_message = "Alerts must lead to their runbook and to the dashboard."
  }

  assert {
    condition     = length(azurerm_management_lock.lock) == 0 && output.PATROL_EGRESS_ADDRESS == ""
    error_message = "There is neither lock nor fixed address unless asked for."
  }

  assert {
    condition     = strcontains(azurerm_application_insights_workbook.workbook.data_json, "Notebook/1.0") && !strcontains(azurerm_application_insights_workbook.workbook.data_json, "{workspace}")
    error_message = "The workbook must show this workspace."
  }

  assert {
    condition     = length(azurerm_virtual_network.network) == 0 && length(azurerm_private_endpoint.endpoint) == 0 && azurerm_storage_account.host.public_network_access_enabled
    error_message = "There is no network unless asked for."
  }

  assert {
    condition     = output.PATROL_FUNCTION_APP == "func-${local.token}" && azurerm_storage_account.host.name == "st${local.token}" && can(regex("^[0-9a-f]{13}$", local.token))
    error_message = "Names must be the Bicep half's: prefix and token."
  }
}

run "in_a_network" {
  command = plan

  variables {
    vnet_enabled        = true
    vnet_address_prefix = "10.1.0.0/25"
  }

  assert {
    condition     = keys(azurerm_private_endpoint.endpoint) == ["blob", "vault"]
    error_message = "Storage and vault must have private endpoints, and Service Bus only in its Premium tier."
  }

  assert {
    condition     = !azurerm_storage_account.host.public_network_access_enabled && !azurerm_key_vault.vault.public_network_access_enabled && azurerm_servicebus_namespace.bus.public_network_access_enabled
    error_message = "What has a private endpoint must be reachable by it only."
  }

  assert {
    condition     = azurerm_subnet.app[0].address_prefixes[0] == "10.1.0.0/26" && azurerm_subnet.endpoints[0].address_prefixes[0] == "10.1.0.64/26"
    error_message = "The subnets must fill the network."
  }

  assert {
    condition     = azurerm_subnet.app[0].delegation[0].service_delegation[0].name == "Microsoft.App/environments"
    error_message = "The app's subnet must be delegated to Flex Consumption."
  }
}

run "in_a_network_with_premium" {
  command = plan

  variables {
    vnet_enabled    = true
    service_bus_sku = "Premium"
    alert_email     = "team@contoso.com"
  }

  assert {
    condition     = keys(azurerm_private_endpoint.endpoint) == ["blob", "namespace", "vault"] && !azurerm_servicebus_namespace.bus.public_network_access_enabled
    error_message = "Service Bus must be reachable by its private endpoint only."
  }

  assert {
    condition     = azurerm_servicebus_namespace.bus.network_rule_set[0].trusted_services_allowed
    error_message = "Event Grid must still get through."
  }

  assert {
    condition     = one(azurerm_monitor_action_group.people[0].email_receiver[*].email_address) == "team@contoso.com"
    error_message = "Who is named must be told."
  }
}

run "by_somebody_who_must_not_assign_roles" {
  command = plan

  variables {
    assign_roles       = false
    subscribe_to_vault = false
  }

  assert {
    condition     = length(azurerm_role_assignment.role) == 0 && length(azurerm_eventgrid_system_topic_event_subscription.vault) == 0
    error_message = "Nothing may be assigned, and nothing that needs it be made."
  }
}

run "behind_app_service_authentication" {
  command = plan

  variables {
    authentication_enabled = true
    entra_client_id        = "00000000-0000-0000-0000-000000000006"
  }

  assert {
    condition     = module.site.changed.authentication.properties.identityProviders.azureActiveDirectory.registration.openIdIssuer == "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000002/v2.0"
    error_message = "People must sign in to the subscription's tenant unless another is named."
  }
}

run "in_a_landing_zone" {
  command = plan

  variables {
    resource_group     = "payments"
    vnet_enabled       = true
    app_subnet_id      = "/subscriptions/00000000-0000-0000-0000-000000000009/resourceGroups/hub/providers/Microsoft.Network/virtualNetworks/n/subnets/app"
    endpoint_subnet_id = "/subscriptions/00000000-0000-0000-0000-000000000009/resourceGroups/hub/providers/Microsoft.Network/virtualNetworks/n/subnets/ends"
    private_dns_zones  = "/subscriptions/00000000-0000-0000-0000-000000000009/resourceGroups/dns"
    workspace_id       = "/subscriptions/00000000-0000-0000-0000-000000000009/resourceGroups/logs/providers/Microsoft.OperationalInsights/workspaces/all"
    action_group_ids   = ["/subscriptions/00000000-0000-0000-0000-000000000009/resourceGroups/oncall/providers/Microsoft.Insights/actionGroups/team"]
    tags               = { owner = "payments" }
    names              = { keyVault = "kv-payments-patrol" }
    check_schedule     = "0 30 6 * * *"
  }

  assert {
    condition = length(concat(
      azurerm_resource_group.group, azurerm_virtual_network.network, azurerm_network_security_group.rules, azurerm_log_analytics_workspace.workspace,
      azurerm_monitor_action_group.people, azurerm_public_ip.egress, azurerm_nat_gateway.egress,
    )) == 0 && length(azurerm_private_dns_zone.zone) == 0
    error_message = "What is there must not be made again."
  }

  assert {
    condition     = alltrue([for e in azurerm_private_endpoint.endpoint : e.subnet_id == var.endpoint_subnet_id && startswith(e.private_dns_zone_group[0].private_dns_zone_ids[0], var.private_dns_zones)])
    error_message = "Private endpoints must be in the subnet that is there, and enter their names into the zones that are there."
  }

  assert {
    condition     = azurerm_application_insights.insights.workspace_id == var.workspace_id && azurerm_key_vault.vault.name == "kv-payments-patrol" && azurerm_key_vault.vault.resource_group_name == "payments"
    error_message = "Workspace, names and group must be those that are given."
  }

  assert {
    condition     = azurerm_key_vault.vault.tags == tomap({ owner = "payments", azd-env-name = "test" })
    error_message = "Tags of one's own must be on every resource."
  }

  assert {
    condition     = alltrue([for a in azurerm_monitor_scheduled_query_rules_alert_v2.alert : a.window_duration == "P2D" && toset(a.action[0].action_groups) == toset(var.action_group_ids)])
    error_message = "With a daily schedule alerts must look back for two days, and tell who is named."
  }
}

run "everything_asked_for" {
  command = plan

  variables {
    vnet_enabled            = true
    vault_allowed_addresses = ["203.0.113.0/24"]
    nat_gateway_enabled     = true
    zone_redundant          = true
    lock_enabled            = true
    confirmation_senders    = ["00000000-0000-0000-0000-00000000000c"]
  }

  assert {
    condition     = azurerm_key_vault.vault.public_network_access_enabled && azurerm_key_vault.vault.network_acls[0].default_action == "Deny" && toset(azurerm_key_vault.vault.network_acls[0].ip_rules) == toset(["203.0.113.0/24"])
    error_message = "Where access is disabled, a vault's rules are not looked at."
  }

  assert {
    condition     = azurerm_subnet_nat_gateway_association.egress[0].nat_gateway_id == azurerm_nat_gateway.egress[0].id && output.PATROL_EGRESS_ADDRESS == "203.0.113.9"
    error_message = "The app must call from the fixed address."
  }

  assert {
    condition     = keys(azurerm_management_lock.lock) == ["identity", "serviceBus", "storage", "vault"] && azurerm_storage_account.host.account_replication_type == "ZRS"
    error_message = "What is asked for must arrive."
  }

  assert {
    condition     = azurerm_role_assignment.role["consumer_00000000-0000-0000-0000-00000000000c"].scope == azurerm_servicebus_queue.confirmations.id && endswith(azurerm_role_assignment.role["consumer_00000000-0000-0000-0000-00000000000c"].role_definition_id, "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39")
    error_message = "A consumer may send to the queue of confirmations, and nothing else."
  }
}

run "in_a_tenant_of_its_own" {
  command = plan

  variables {
    entra_tenant_id = "00000000-0000-0000-0000-00000000000f"
  }

  expect_failures = [azurerm_user_assigned_identity.app]
}
