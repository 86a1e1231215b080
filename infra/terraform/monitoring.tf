# Where logs go: a workspace, and Application Insights on it, which takes telemetry
# only with an Entra token.
resource "azurerm_log_analytics_workspace" "workspace" {
  name                         = "${local.prefix.logAnalytics}${local.token}"
  resource_group_name          = azurerm_resource_group.group.name
  location                     = var.location
  tags                         = local.tags
  sku                          = "PerGB2018"
  retention_in_days            = var.log_retention_days
  local_authentication_enabled = false
}

resource "azurerm_application_insights" "insights" {
  name                         = "${local.prefix.applicationInsights}${local.token}"
  resource_group_name          = azurerm_resource_group.group.name
  location                     = var.location
  tags                         = local.tags
  application_type             = "web"
  workspace_id                 = azurerm_log_analytics_workspace.workspace.id
  local_authentication_enabled = false
}

resource "azurerm_monitor_diagnostic_setting" "app" {
  name                       = "app"
  target_resource_id         = module.site.id
  log_analytics_workspace_id = azurerm_log_analytics_workspace.workspace.id

  enabled_log {
    category = "FunctionAppLogs"
  }
}

# The page that shows how patrol has been doing.
resource "azurerm_application_insights_workbook" "workbook" {
  name                = uuidv5("url", "${azurerm_resource_group.group.id}/patrol")
  resource_group_name = azurerm_resource_group.group.name
  location            = var.location
  tags                = local.tags
  display_name        = "patrol (${var.environment_name})"
  category            = "workbook"
  source_id           = lower(azurerm_log_analytics_workspace.workspace.id)
  data_json           = replace(file("${path.module}/../workbook.json"), "{workspace}", azurerm_log_analytics_workspace.workspace.id)
}
