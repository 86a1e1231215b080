// The page that shows how patrol has been doing.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('The name that people see')
param displayName string

@description('Name of Application Insights: in a workspace of many its lines are told apart by it')
param insightsName string

@description('Log Analytics workspace, by its id')
param workspaceId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'patrol')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    category: 'workbook'
    displayName: displayName
    sourceId: workspaceId
    version: 'Notebook/1.0'
    serializedData: replace(
      replace(loadTextContent('../workbook.json'), '{workspace}', workspaceId),
      '{insights}',
      toLower(resourceId('Microsoft.Insights/components', insightsName))
    )
  }
}
