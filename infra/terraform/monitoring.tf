# Where logs go: a workspace, and Application Insights on it, which takes telemetry
# only with an Entra token. It has the app's lines; a diagnostic setting for
# FunctionAppLogs would bill the same lines a second time.
locals {
  workspace_id = var.workspace_id == "" ? one(azurerm_log_analytics_workspace.workspace[*].id) : var.workspace_id
}

resource "azurerm_log_analytics_workspace" "workspace" {
  count = var.workspace_id == "" ? 1 : 0

  name                         = local.name.logAnalytics
  resource_group_name          = local.group.name
  location                     = var.location
  tags                         = local.tags
  sku                          = "PerGB2018"
  retention_in_days            = var.log_retention_days
  local_authentication_enabled = false
  daily_quota_gb               = var.log_daily_cap_gb
}

resource "azurerm_application_insights" "insights" {
  name                         = local.name.applicationInsights
  resource_group_name          = local.group.name
  location                     = var.location
  tags                         = local.tags
  application_type             = "web"
  workspace_id                 = local.workspace_id
  local_authentication_enabled = false
}

# The page that shows how patrol has been doing.
resource "azurerm_application_insights_workbook" "workbook" {
  name                = uuidv5("url", "${local.group.id}/patrol")
  resource_group_name = local.group.name
  location            = var.location
  tags                = local.tags
  display_name        = "patrol (${var.environment_name})"
  category            = "workbook"
  source_id           = lower(local.workspace_id)
  data_json = replace(
    replace(file("${path.module}/../workbook.json"), "{workspace}", local.workspace_id),
    "{insights}", lower(azurerm_application_insights.insights.id),
  )
}
