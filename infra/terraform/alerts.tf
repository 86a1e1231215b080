# What a person should hear of. The queries read lines that the handler logs.
locals {
  # Rows of the query: more than 0, or (below) fewer than 1.
  log_alerts = {
    rotation-failed = {
      text      = "A PAT could not be rotated; patrol has said why in an event and in its log"
      query     = file("${path.module}/../queries/rotation-failed.kql")
      severity  = 1
      every     = "PT15M"
      window    = "PT30M"
      dimension = "subject"
      operator  = "GreaterThan"
      threshold = 0
    }
    sign-in-required = {
      text      = "An identity must sign in again before its PATs end"
      query     = file("${path.module}/../queries/sign-in-required.kql")
      severity  = 1
      every     = "PT15M"
      window    = "PT30M"
      dimension = "subject"
      operator  = "GreaterThan"
      threshold = 0
    }
    check-incomplete = {
      text      = "patrol cannot observe everything, or waits for a person before it acts"
      query     = file("${path.module}/../queries/check-incomplete.kql")
      severity  = 1
      every     = "PT15M"
      window    = "PT30M"
      dimension = "subject"
      operator  = "GreaterThan"
      threshold = 0
    }
    ends-soon = {
      text      = "A PAT has less than 48 hours left and no successor"
      query     = file("${path.module}/../queries/ends-soon.kql")
      severity  = 0
      every     = "PT1H"
      window    = "P1D"
      dimension = "subject"
      operator  = "GreaterThan"
      threshold = 0
    }
    sign-in-expiring = {
      text      = "A sign-in has not been used for long and will be lost"
      query     = file("${path.module}/../queries/sign-in-expiring.kql")
      severity  = 2
      every     = "PT1H"
      window    = "PT1H"
      dimension = "subject"
      operator  = "GreaterThan"
      threshold = 0
    }
    expiring = {
      text      = "A PAT that nobody manages will end"
      query     = file("${path.module}/../queries/expiring.kql")
      severity  = 3
      every     = "PT1H"
      window    = "PT1H"
      dimension = "subject"
      operator  = "GreaterThan"
      threshold = 0
    }
    no-sweep = {
      text      = "No sweep has ended for a day"
      query     = file("${path.module}/../queries/sweeps.kql")
      severity  = 1
      every     = "PT1H"
      window    = "P1D"
      dimension = ""
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
      dimension   = "EntityName"
    }
    event-delivery = {
      text        = "Event Grid could not deliver an event of the vault to its queue"
      scope       = azurerm_eventgrid_system_topic.vault.id
      namespace   = "Microsoft.EventGrid/systemTopics"
      metric      = "DeliveryAttemptFailCount"
      aggregation = "Total"
      dimension   = "EventSubscriptionName"
    }
  }
}

resource "azurerm_monitor_action_group" "people" {
  name                = "${local.prefix.actionGroup}${local.token}"
  resource_group_name = azurerm_resource_group.group.name
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
  resource_group_name     = azurerm_resource_group.group.name
  location                = var.location
  tags                    = local.tags
  display_name            = "patrol: ${each.key}"
  description             = each.value.text
  severity                = each.value.severity
  enabled                 = true
  scopes                  = [azurerm_log_analytics_workspace.workspace.id]
  evaluation_frequency    = each.value.every
  window_duration         = each.value.window
  auto_mitigation_enabled = true

  # A new workspace has no table yet that the query could be tried on.
  skip_query_validation = true

  criteria {
    query                   = each.value.query
    time_aggregation_method = "Count"
    operator                = each.value.operator
    threshold               = each.value.threshold

    dynamic "dimension" {
      for_each = each.value.dimension == "" ? [] : [each.value.dimension]

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
    action_groups = [azurerm_monitor_action_group.people.id]
  }
}

resource "azurerm_monitor_metric_alert" "alert" {
  for_each = local.metric_alerts

  name                = "patrol-${var.environment_name}-${each.key}"
  resource_group_name = azurerm_resource_group.group.name
  tags                = local.tags
  description         = each.value.text
  severity            = 2
  enabled             = true
  scopes              = [each.value.scope]
  frequency           = "PT5M"
  window_size         = "PT15M"
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
      values   = ["*"]
    }
  }

  action {
    action_group_id = azurerm_monitor_action_group.people.id
  }
}
