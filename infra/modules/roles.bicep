// Every role that patrol needs, each on the smallest thing that it can be given for.
// Who may assign roles can deploy this file alone, for somebody who may not.
@description('The app\'s identity, as roles name it')
param appPrincipalId string

@description('Event Grid\'s identity, as roles name it')
param eventPrincipalId string

@description('Name of the host\'s storage account')
param storageName string

@description('Name of the container of the app\'s state')
param stateContainer string

@description('Name of the vault')
param vaultName string

@description('Name of the Service Bus namespace')
param busName string

@description('Name of the queue of commands')
param commandQueue string

@description('Name of the queue of the vault\'s events')
param vaultEventQueue string

@description('Name of the queue of consumers\' confirmations')
param confirmationQueue string

@description('Who confirms, as roles name them')
param confirmationSenders string[]

@description('Name of the topic of patrol\'s events')
param eventTopic string

@description('Name of Application Insights')
param insightsName string

var storageBlobDataOwner = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
)
var storageBlobDataContributor = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
)
var keyVaultSecretsOfficer = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'
)
var serviceBusDataOwner = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '090c5cfd-751d-490a-894a-3ce6f1109419'
)
var serviceBusDataSender = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '69a216fc-b8fb-44d8-bc22-1f3c2cd27a39'
)
var monitoringMetricsPublisher = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '3913510d-42f4-4e42-8a64-420c390055eb'
)

resource storage 'Microsoft.Storage/storageAccounts@2025-08-01' existing = {
  name: storageName

  resource blobs 'blobServices' existing = {
    name: 'default'

    resource state 'containers' existing = {
      name: stateContainer
    }
  }
}

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' existing = {
  name: vaultName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource bus 'Microsoft.ServiceBus/namespaces@2026-01-01' existing = {
  name: busName

  resource commands 'queues' existing = {
    name: commandQueue
  }

  resource vaultEvents 'queues' existing = {
    name: vaultEventQueue
  }

  resource confirmations 'queues' existing = {
    name: confirmationQueue
  }

  resource events 'topics' existing = {
    name: eventTopic
  }
}

// The host keeps its keys, its leases and the app's package in blobs.
resource appOnStorage 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage.id, appPrincipalId, storageBlobDataOwner)
  scope: storage
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: storageBlobDataOwner
  }
}

// What the app itself needs, whatever the host is given, and in whichever account.
resource appOnState 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage::blobs::state.id, appPrincipalId, storageBlobDataContributor)
  scope: storage::blobs::state
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: storageBlobDataContributor
  }
}

resource appOnVault 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, appPrincipalId, keyVaultSecretsOfficer)
  scope: vault
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: keyVaultSecretsOfficer
  }
}

// The platform wakes an app that rests when its queue has something to do. Only who may
// manage a queue is told how much that is; without that it looks at the first messages
// alone, and takes a scheduled one for nothing.
resource appOwnsCommands 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(bus::commands.id, appPrincipalId, serviceBusDataOwner)
  scope: bus::commands
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: serviceBusDataOwner
  }
}

resource appOwnsVaultEvents 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(bus::vaultEvents.id, appPrincipalId, serviceBusDataOwner)
  scope: bus::vaultEvents
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: serviceBusDataOwner
  }
}

resource appOwnsConfirmations 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(bus::confirmations.id, appPrincipalId, serviceBusDataOwner)
  scope: bus::confirmations
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: serviceBusDataOwner
  }
}

resource consumersConfirm 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for consumer in confirmationSenders: {
    name: guid(bus::confirmations.id, consumer, serviceBusDataSender)
    scope: bus::confirmations
    properties: {
      principalId: consumer
      principalType: 'ServicePrincipal'
      roleDefinitionId: serviceBusDataSender
    }
  }
]

resource appPublishesEvents 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(bus::events.id, appPrincipalId, serviceBusDataSender)
  scope: bus::events
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: serviceBusDataSender
  }
}

resource appOnInsights 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, appPrincipalId, monitoringMetricsPublisher)
  scope: insights
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: monitoringMetricsPublisher
  }
}

resource eventGridSendsVaultEvents 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(bus::vaultEvents.id, eventPrincipalId, serviceBusDataSender)
  scope: bus::vaultEvents
  properties: {
    principalId: eventPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: serviceBusDataSender
  }
}
