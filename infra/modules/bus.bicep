// Commands in, the vault's events in, patrol's events out.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the resource')
param name string

@description('Pricing tier')
param sku 'Standard' | 'Premium'

@description('Reachable from everywhere (with a role), or by private endpoint only')
param publicAccess bool

@description('Name of the queue of commands')
param commandQueue string

@description('Name of the queue of the vault\'s events')
param vaultEventQueue string

@description('Name of the queue of consumers\' confirmations')
param confirmationQueue string

@description('Locks it against deletion')
param lockEnabled bool

@description('Name of the topic of patrol\'s events')
param eventTopic string

@description('Name of the subscription to all of patrol\'s events')
param eventSubscription string

@description('Log Analytics workspace, by its id')
param workspaceId string

resource namespace 'Microsoft.ServiceBus/namespaces@2026-01-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: sku
    tier: sku
    capacity: sku == 'Premium' ? 1 : null
  }
  properties: {
    premiumMessagingPartitions: sku == 'Premium' ? 1 : null
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
  }

  // Event Grid does not deliver over a private endpoint; it is a trusted service.
  resource rules 'networkRuleSets' = if (!publicAccess) {
    name: 'default'
    properties: {
      publicNetworkAccess: 'Disabled'
      defaultAction: 'Deny'
      trustedServiceAccessEnabled: true
    }
  }

  // Sessions: one PAT is never worked on twice at once. Duplicate detection: a
  // repeated command is dropped. Neither can be changed later.
  resource commands 'queues' = {
    name: commandQueue
    properties: {
      requiresSession: true
      requiresDuplicateDetection: true
      duplicateDetectionHistoryTimeWindow: 'PT10M'
      lockDuration: 'PT5M'
      maxDeliveryCount: 10
    }
  }

  // No sessions: Event Grid cannot deliver to a queue that has them. It keeps the
  // message id over its own redeliveries.
  resource vaultEvents 'queues' = {
    name: vaultEventQueue
    properties: {
      requiresSession: false
      requiresDuplicateDetection: true
      duplicateDetectionHistoryTimeWindow: 'PT10M'
      lockDuration: 'PT5M'
      maxDeliveryCount: 10
    }
  }

  // Consumers say here that they have switched. No duplicate detection: a forged message
  // must not shut a right one out.
  resource confirmations 'queues' = {
    name: confirmationQueue
    properties: {
      requiresSession: false
      requiresDuplicateDetection: false
      lockDuration: 'PT5M'
      maxDeliveryCount: 10
    }
  }

  resource events 'topics' = {
    name: eventTopic
    properties: { requiresDuplicateDetection: false }

    // Everything, for whoever comes first. What nobody reads ends after two weeks,
    // or it would fill the topic.
    resource all 'subscriptions' = {
      name: eventSubscription
      properties: {
        requiresSession: false
        lockDuration: 'PT1M'
        maxDeliveryCount: 10
        defaultMessageTimeToLive: 'P14D'
        deadLetteringOnMessageExpiration: false
      }
    }
  }
}

// The stable version of this type has no categoryGroup.
#disable-next-line use-recent-api-versions
resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: namespace
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

resource locked 'Microsoft.Authorization/locks@2020-05-01' = if (lockEnabled) {
  name: 'patrol'
  scope: namespace
  properties: {
    level: 'CanNotDelete'
    notes: 'Orders and ends of overlaps wait here.'
  }
}

@description('The resource\'s id')
output id string = namespace.id

@description('Host name of the namespace')
output host string = split(replace(namespace.properties.serviceBusEndpoint, 'https://', ''), ':')[0]

@description('The queue of the vault\'s events, by its id')
output vaultEventQueueId string = namespace::vaultEvents.id
