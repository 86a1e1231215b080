// A virtual network with a subnet for the app's instances and one for private
// endpoints, and if asked for a fixed address from which the app calls.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the resource')
param name string

@description('Name of the network security group')
param securityGroupName string

@description('Address range of the network')
param addressPrefix string

@description('Makes a NAT gateway')
param natGatewayEnabled bool

@description('Name of the NAT gateway')
param natGatewayName string

@description('Name of its public address')
param publicAddressName string

@description('NAT gateway of yours, by its id; empty: none')
param existingNatGatewayId string

@description('Spreads the public address over zones')
param zoneRedundant bool

var gatewayId = natGatewayEnabled ? gateway.id : existingNatGatewayId

resource address 'Microsoft.Network/publicIPAddresses@2025-09-01' = if (natGatewayEnabled) {
  name: publicAddressName
  location: location
  tags: tags
  sku: { name: 'Standard' }
  zones: zoneRedundant ? ['1', '2', '3'] : null
  properties: { publicIPAllocationMethod: 'Static' }
}

resource gateway 'Microsoft.Network/natGateways@2025-09-01' = if (natGatewayEnabled) {
  name: natGatewayName
  location: location
  tags: tags
  sku: { name: 'Standard' }
  properties: { publicIpAddresses: [{ id: address.id }] }
}

resource rules 'Microsoft.Network/networkSecurityGroups@2025-09-01' = {
  name: securityGroupName
  location: location
  tags: tags
  properties: { securityRules: [] }
}

resource network 'Microsoft.Network/virtualNetworks@2025-09-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: [addressPrefix] }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 26, 0)
          networkSecurityGroup: { id: rules.id }
          natGateway: empty(gatewayId) ? null : { id: gatewayId }
          delegations: [
            {
              name: 'functions'
              properties: { serviceName: 'Microsoft.App/environments' }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 26, 1)
          networkSecurityGroup: { id: rules.id }
          privateEndpointNetworkPolicies: 'Enabled'
        }
      }
    ]
  }

  resource app 'subnets' existing = {
    name: 'app'
  }

  resource endpoints 'subnets' existing = {
    name: 'endpoints'
  }
}

@description('The network, by its id')
output networkId string = network.id

@description('The subnet of the app, by its id')
output appSubnetId string = network::app.id

@description('The subnet of the private endpoints, by its id')
output endpointSubnetId string = network::endpoints.id

@description('The address from which the app calls; empty: it is not fixed')
output egressAddress string = natGatewayEnabled ? address!.properties.ipAddress : ''
