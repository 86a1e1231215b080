// Two identities: the app's, and the one by which Event Grid delivers. They exist
// before all else, so that their roles have time to take effect.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the app\'s identity')
param appIdentityName string

@description('Name of the identity by which Event Grid delivers')
param eventIdentityName string

@description('Locks it against deletion')
param lockEnabled bool

resource app 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: appIdentityName
  location: location
  tags: tags
}

resource event 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: eventIdentityName
  location: location
  tags: tags
}

resource locked 'Microsoft.Authorization/locks@2020-05-01' = if (lockEnabled) {
  name: 'patrol'
  scope: app
  properties: {
    level: 'CanNotDelete'
    notes: 'The app registration trusts this identity by its object id, which another one does not have.'
  }
}

@description('The app\'s identity, by its id')
output appId string = app.id

@description('The app\'s identity, as it names itself')
output appClientId string = app.properties.clientId

@description('The app\'s identity, as roles name it')
output appPrincipalId string = app.properties.principalId

@description('Event Grid\'s identity, by its id')
output eventId string = event.id

@description('Event Grid\'s identity, as roles name it')
output eventPrincipalId string = event.properties.principalId
