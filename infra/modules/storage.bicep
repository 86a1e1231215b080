// The host's storage, the container that the app's package lies in, and the one of the
// app's state. It has no keys to give away: they are switched off.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the resource')
param name string

@description('Name of the container of the app\'s state')
param stateContainer string

@description('Reachable from everywhere (with a role), or by private endpoint only')
param publicAccess bool

@description('Copies in several zones; cannot be changed later by a deployment')
param zoneRedundant bool

@description('Locks it against deletion')
param lockEnabled bool

resource account 'Microsoft.Storage/storageAccounts@2025-08-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: zoneRedundant ? 'Standard_ZRS' : 'Standard_LRS' }
  properties: {
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    networkAcls: {
      defaultAction: publicAccess ? 'Allow' : 'Deny'
      bypass: 'AzureServices'
    }
  }

  resource blobs 'blobServices' = {
    name: 'default'
    properties: {
      deleteRetentionPolicy: {
        enabled: true
        days: 7
      }
    }

    resource deployment 'containers' = {
      name: 'deployment'
      properties: { publicAccess: 'None' }
    }

    resource state 'containers' = {
      name: stateContainer
      properties: { publicAccess: 'None' }
    }
  }
}

resource locked 'Microsoft.Authorization/locks@2020-05-01' = if (lockEnabled) {
  name: 'patrol'
  scope: account
  properties: {
    level: 'CanNotDelete'
    notes: 'The host keeps its keys here, and patrol what its processes tell each other.'
  }
}

@description('The resource\'s id')
output id string = account.id

@description('Address of the container of the app\'s package')
output deploymentContainerUrl string = '${account.properties.primaryEndpoints.blob}${account::blobs::deployment.name}'

@description('Address of the container of the app\'s state')
output stateUrl string = '${account.properties.primaryEndpoints.blob}${account::blobs::state.name}'
