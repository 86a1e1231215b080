// Private endpoints for what the app speaks to, and the names by which it finds them.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('What the names begin with')
param namePrefix string

@description('The network, by its id')
param networkId string

@description('The subnet, by its id; empty: none')
param subnetId string

@description('Private DNS zones: empty: made here; the id of the group that has them; or policy: names are entered by somebody else')
param zones string

@description('The host\'s storage account, by its id')
param storageId string

@description('The vault, by its id')
param vaultId string

@description('The Service Bus namespace, by its id')
param busId string

@description('Whether Service Bus has an endpoint: it is Premium')
param busEndpoint bool

var all = [
  {
    group: 'blob'
    zone: 'privatelink.blob.${environment().suffixes.storage}'
  }
  {
    group: 'vault'
    zone: 'privatelink${replace(environment().suffixes.keyvaultDns, '.vault.', '.vaultcore.')}'
  }
  {
    group: 'namespace'
    zone: 'privatelink.servicebus.windows.net'
  }
]
var endpoints = take(all, busEndpoint ? 3 : 2)

resource ownZones 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for e in endpoints: if (empty(zones)) {
    name: e.zone
    location: 'global'
    tags: tags
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (e, i) in endpoints: if (empty(zones)) {
    parent: ownZones[i]
    name: 'patrol'
    location: 'global'
    tags: tags
    properties: {
      registrationEnabled: false
      virtualNetwork: { id: networkId }
    }
  }
]

resource connections 'Microsoft.Network/privateEndpoints@2025-09-01' = [
  for (e, i) in endpoints: {
    name: '${namePrefix}-${e.group}'
    location: location
    tags: tags
    properties: {
      subnet: { id: subnetId }
      privateLinkServiceConnections: [
        {
          name: e.group
          properties: {
            privateLinkServiceId: i == 0 ? storageId : i == 1 ? vaultId : busId
            groupIds: [e.group]
          }
        }
      ]
    }
  }
]

resource records 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2025-09-01' = [
  for (e, i) in endpoints: if (zones != 'policy') {
    parent: connections[i]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: e.group
          properties: { privateDnsZoneId: empty(zones) ? ownZones[i].id : '${zones}/providers/Microsoft.Network/privateDnsZones/${e.zone}' }
        }
      ]
    }
  }
]
