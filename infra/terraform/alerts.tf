# What a person should hear of. The queries read lines that the handler logs.
locals {
  dashboard_url = "${var.public_url == "" ? module.site.url : var.public_url}/api/dashboard"
  own_group     = var.alert_email != "" || length(var.action_group_ids) == 0
  group_ids     = concat(azurerm_monitor_action_group.people[*].id, var.action_group_ids)

  # Each query asks for what stands as of the last sweeps, not for an event that is told
  # once: an alert lasts as long as its trouble. What it is about goes into the mail.
  about = ["subject", "displayName", "class", "code"]

  # Rows of the query: more than 0, or (below) fewer than 1.
  log_alerts = {
    rotation-failed = {
      text      = "A PAT could not be rotated; patrol has said why in an event and in its log"
      query     = file("${path.module}/../queries/rotation-failed.kql")
      severity  = 1
      every     = "PT15M"
      about     = local.about
      operator  = "GreaterThan"
      threshold = 0
    }
    sign-in-required = {
      text      = "An identity must sign in again before its PATs end"
      query     = file("${path.module}/../queries/sign-in-required.kql")
      severity  = 1
      every     = "PT15M"
      about     = local.about
      operator  = "GreaterThan"
      threshold = 0
    }
    check-incomplete = {
      text      = "patrol cannot observe everything, or waits for a person before it acts"
      query     = file("${path.module}/../queries/check-incomplete.kql")
      severity  = 1
      every     = "PT15M"
      about     = local.about
      operator  = "GreaterThan"
      threshold = 0
    }
    ends-soon = {
      text      = "A PAT has less than 48 hours left and no successor"
      query     = file("${path.module}/../queries/ends-soon.kql")
      severity  = 0
      every     = "PT1H"
      about     = local.about
      operator  = "GreaterThan"
      threshold = 0
    }
    sign-in-expiring = {
      text      = "A sign-in has not been used for long and will be lost"
      query     = file("${path.module}/../queries/sign-in-expiring.kql")
      severity  = 2
      every     = "PT1H"
      about     = local.about
      operator  = "GreaterThan"
      threshold = 0
    }
    expiring = {
      text      = "A PAT that nobody manages will end"
      query     = file("${path.module}/../queries/expiring.kql")
      severity  = 3
      every     = "PT1H"
      about     = local.about
      operator  = "GreaterThan"
      threshold = 0
    }
    no-sweep = {
      text      = "No sweep has ended for two intervals of the schedule"
      query     = file("${path.module}/../queries/sweeps.kql")
      severity  = 1
      every     = "PT1H"
      about     = []
      operator  = "LessThan"
      threshold = 1
    }
  }

  metric_alerts = {
    dead-letters = {
      text        = "A message has gone to a dead-letter queue and stays there"
      scope       = azurerm_servicebus_namespace.bus.id
      namespace   = "Microsoft.ServiceBus/namespaces"
      metric      = "DeadletteredMessages"
      aggregation = "Maximum"
      window      = "PT15M"
      dimension   = "EntityName"
      values      = ["*"]
    }
    event-delivery = {
      text        = "Event Grid could not deliver an event of the vault to its queue"
      scope       = azurerm_eventgrid_system_topic.vault.id
      namespace   = "Microsoft.EventGrid/systemTopics"
      metric      = "DeliveryAttemptFailCount"
      aggregation = "Total"
      window      = "PT15M"
      dimension   = "EventSubscriptionName"
      values      = ["*"]
    }
    # The least of half an hour is more than 0: nothing has emptied the queue in it.
    waiting-messages = {
      text        = "A queue has had messages for half an hour that nobody took: the app does not wake"
      scope       = azurerm_servicebus_namespace.bus.id
      namespace   = "Microsoft.ServiceBus/namespaces"
      metric      = "ActiveMessages"
      aggregation = "Minimum"
      window      = "PT30M"
      dimension   = "EntityName"
      values      = [local.command_queue, local.vault_event_queue, local.confirmation_queue]
    }
  }
}

resource "azurerm_monitor_action_group" "people" {
  count = local.own_group ? 1 : 0

  name                = local.name.actionGroup
  resource_group_name = local.group.name
  location            = "global"
  tags                = local.tags
  short_name          = "patrol"

  dynamic "email_receiver" {
    for_each = var.alert_email == "" ? [] : [var.alert_email]

    content {
      name                    = "email"
      email_address           = email_receiver.value
      use_common_alert_schema = true
    }
  }
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "alert" {
  for_each = local.log_alerts

  name                    = "patrol-${var.environment_name}-${each.key}"
  resource_group_name     = local.group.name
  location                = var.location
  tags                    = local.tags
  display_name            = "patrol: ${each.key}"
  description             = "${each.value.text}. Runbook: ${var.runbook_url}#${each.key}. Dashboard: ${local.dashboard_url}"
  severity                = each.value.severity
  enabled                 = true
  scopes                  = [local.workspace_id]
  evaluation_frequency    = each.value.every
  window_duration         = local.sweep_window
  auto_mitigation_enabled = true

  # A new workspace has no table yet that the query could be tried on.
  skip_query_validation = true

  criteria {
    query                   = replace(each.value.query, "{insights}", lower(azurerm_application_insights.insights.id))
    time_aggregation_method = "Count"
    operator                = each.value.operator
    threshold               = each.value.threshold

    dynamic "dimension" {
      for_each = each.value.about

      content {
        name     = dimension.value
        operator = "Include"
        values   = ["*"]
      }
    }

    failing_periods {
      number_of_evaluation_periods             = 1
      minimum_failing_periods_to_trigger_alert = 1
    }
  }

  action {
    action_groups = local.group_ids
    custom_properties = {
      runbook   = "${var.runbook_url}#${each.key}"
      dashboard = local.dashboard_url
    }
  }
}

resource "azurerm_monitor_metric_alert" "alert" {
  for_each = local.metric_alerts

  name                = "patrol-${var.environment_name}-${each.key}"
  resource_group_name = local.group.name
  tags                = local.tags
  description         = "${each.value.text}. Runbook: ${var.runbook_url}#${each.key}. Dashboard: ${local.dashboard_url}"
  severity            = 2
  enabled             = true
  scopes              = [each.value.scope]
  frequency           = "PT5M"
  window_size         = each.value.window
  auto_mitigate       = true

  criteria {
    metric_namespace = each.value.namespace
    metric_name      = each.value.metric
    aggregation      = each.value.aggregation
    operator         = "GreaterThan"
    threshold        = 0

    dimension {
      name     = each.value.dimension
      operator = "Include"
      values   = each.value.values
    }
  }

  dynamic "action" {
    for_each = local.group_ids

    content {
      action_group_id = action.value
    }
  }
}
