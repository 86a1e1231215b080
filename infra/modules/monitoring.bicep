// Where logs go: a workspace, and Application Insights on it, which takes telemetry
// only with an Entra token. It has the app's lines; a diagnostic setting for
// FunctionAppLogs would bill the same lines a second time.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the Log Analytics workspace')
param workspaceName string

@description('Name of Application Insights')
param insightsName string

@description('Days for which logs are kept')
param retentionDays int

@description('Gigabytes a day after which nothing more is taken; -1: no limit')
param dailyCapGb int

@description('Workspace of yours, by its id; empty: one is made')
param existingWorkspaceId string

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' = if (empty(existingWorkspaceId)) {
  name: workspaceName
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: retentionDays
    features: { disableLocalAuth: true }
    workspaceCapping: { dailyQuotaGb: dailyCapGb }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: insightsName
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: empty(existingWorkspaceId) ? workspace.id : existingWorkspaceId
    DisableLocalAuth: true
  }
}

@description('Log Analytics workspace, by its id')
output workspaceId string = empty(existingWorkspaceId) ? workspace.id : existingWorkspaceId
