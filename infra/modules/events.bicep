// The vault's events, to the queue of hints. A vault has one system topic; patrol's
// vault is its own, so this is it.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the resource')
param name string

@description('The vault, by its id')
param vaultId string

@description('The identity, by its id')
param identityId string

@description('The queue that events are delivered to, by its id')
param queueId string

@description('Whether to subscribe; it needs the role')
param subscribe bool

@description('Log Analytics workspace, by its id')
param workspaceId string

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' = {
  name: name
  location: location
  tags: tags
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    source: vaultId
    topicType: 'Microsoft.KeyVault.vaults'
  }

  // The queue and the identity's role on it must exist before: see main.bicep.
  resource subscription 'eventSubscriptions' = if (subscribe) {
    name: 'vault-events'
    properties: {
      eventDeliverySchema: 'EventGridSchema'
      filter: {
        includedEventTypes: [
          'Microsoft.KeyVault.SecretNearExpiry'
          'Microsoft.KeyVault.SecretExpired'
          'Microsoft.KeyVault.SecretNewVersionCreated'
        ]
      }
      deliveryWithResourceIdentity: {
        identity: {
          type: 'UserAssigned'
          userAssignedIdentity: identityId
        }
        destination: {
          endpointType: 'ServiceBusQueue'
          properties: { resourceId: queueId }
        }
      }
      retryPolicy: {
        maxDeliveryAttempts: 30
        eventTimeToLiveInMinutes: 1440
      }
    }
  }
}

// The stable version of this type has no categoryGroup.
#disable-next-line use-recent-api-versions
resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: topic
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
        enabled: true
      }
    ]
  }
}

@description('The vault\'s system topic, by its id')
output systemTopicId string = topic.id
