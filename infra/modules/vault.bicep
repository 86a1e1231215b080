// The vault is patrol's memory: every PAT, its ledger, and the sign-ins.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the resource')
param name string

@description('Reachable from everywhere (with a role), or by private endpoint only')
param publicAccess bool

@description('Public addresses and ranges that may come all the same')
param allowedAddresses string[]

@description('Locks it against deletion')
param lockEnabled bool

@description('Nothing deleted can be purged before its time')
param purgeProtection bool

@description('Days for which deleted secrets can be recovered')
param softDeleteDays int

@description('Log Analytics workspace, by its id')
param workspaceId string

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: softDeleteDays
    // The service refuses false: it can be on or not be mentioned.
    enablePurgeProtection: purgeProtection ? true : null
    // Where it is disabled, rules are not looked at.
    publicNetworkAccess: publicAccess || !empty(allowedAddresses) ? 'Enabled' : 'Disabled'
    networkAcls: {
      defaultAction: publicAccess ? 'Allow' : 'Deny'
      bypass: 'AzureServices'
      ipRules: [for address in allowedAddresses: { value: address }]
    }
  }
}

// The stable version of this type has no categoryGroup.
#disable-next-line use-recent-api-versions
resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'audit'
  scope: vault
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

resource locked 'Microsoft.Authorization/locks@2020-05-01' = if (lockEnabled) {
  name: 'patrol'
  scope: vault
  properties: {
    level: 'CanNotDelete'
    notes: 'The vault is patrol\'s memory.'
  }
}

@description('The resource\'s id')
output id string = vault.id
