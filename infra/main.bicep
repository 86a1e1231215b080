// patrol on Azure: a resource group, and all that the app needs in it. Who may deploy to a
// group only deploys group.bicep: it has the same parameters and outputs.
targetScope = 'subscription'

// --- What azd asks for

@description('Name of the environment; part of the resource group\'s name, and what makes the other names unique')
@minLength(1)
@maxLength(64)
param environmentName string

@description('Region of all resources; one that offers Flex Consumption')
@minLength(1)
@metadata({ azd: { type: 'location' } })
param location string

// --- The app

@description('When the sweep runs: NCRONTAB with six fields, UTC, at least daily; empty: every six hours')
param checkSchedule string = ''

@description('What the handler logs')
@allowed(['debug', 'info', 'warn', 'error'])
param logLevel string = 'info'

@description('How Service Bus is reached: amqp (port 5671), or websockets (port 443)')
@allowed(['amqp', 'websockets'])
param serviceBusTransport string = 'amqp'

@description('Path of the manifest in the app\'s package')
@minLength(1)
param manifest string = 'pats.yaml'

@description('Base of the redirect URI and of links; empty: the app\'s own host name')
param publicUrl string = ''

@description('Azure DevOps')
param azureDevOpsUrl string = 'https://dev.azure.com'

@description('Azure DevOps, its profile and token service')
param azureDevOpsVsspsUrl string = 'https://vssps.dev.azure.com'

@description('OTLP endpoint for traces and metrics; empty: none are sent')
param otlpEndpoint string = ''

@description('Memory of an instance in MB')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 512

@description('The most instances that the app is scaled out to')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Instances kept ready for HTTP; each is billed also when idle')
@minValue(0)
@maxValue(10)
param alwaysReadyHttp int = 0

@description('Instances kept ready for commands; the way of a leaked PAT waits for these, not for those of HTTP')
@minValue(0)
@maxValue(10)
param alwaysReadyReconcile int = 0

@description('What a deployment does to what runs: RollingUpdate (a preview) lets it end, Recreate cuts it off')
@allowed(['Recreate', 'RollingUpdate'])
param siteUpdateStrategy string = 'Recreate'

@description('Settings of yours beside patrol\'s, like OTEL_*; no secrets, but references to secrets in a vault')
param extraSettings { *: string } = {}

// --- Sign-in

@description('Tenant that people sign in to; empty: the subscription\'s')
param entraTenantId string = ''

@description('Client id of the app registration that people sign in to; empty until there is one')
param entraClientId string = ''

@description('How the app proves to Entra that it is itself')
@allowed(['managed-identity', 'certificate', 'none'])
param entraClientCredential string = 'managed-identity'

@description('Name of the certificate in Key Vault, if entraClientCredential is certificate')
param entraCertificate string = ''

@description('Puts App Service authentication before the app, in addition to its keys')
param authenticationEnabled bool = false

@description('What App Service authentication does with a caller that has not signed in')
@allowed(['RedirectToLoginPage', 'Return401', 'Return403', 'AllowAnonymous'])
param unauthenticatedAction string = 'RedirectToLoginPage'

// --- Data and messages

@description('Deleted vaults and secrets cannot be purged before their time; cannot be switched off again')
param vaultPurgeProtection bool = true

@description('Days for which deleted secrets can be recovered; cannot be changed later')
@minValue(7)
@maxValue(90)
param vaultSoftDeleteDays int = 90

@description('Premium is needed for a private endpoint of Service Bus only')
@allowed(['Standard', 'Premium'])
param serviceBusSku string = 'Standard'

@description('Who confirms that they have switched to a new PAT, by object id: they may send to pat-confirmations')
param confirmationSenders string[] = []

// --- Network

@description('Puts the app into a virtual network, and storage, vault and (Premium) Service Bus behind private endpoints')
param vnetEnabled bool = false

@description('Address range of the virtual network, /25 or larger')
param vnetAddressPrefix string = '10.0.0.0/24'

@description('Subnet of yours for the app, by id, delegated to Microsoft.App/environments; empty: one is made')
param appSubnetId string = ''

@description('Subnet of yours for private endpoints, by id; empty: one is made')
param endpointSubnetId string = ''

@description('Private DNS zones: empty: made here; the id of the group that has them; or policy: somebody else enters names')
param privateDnsZones string = ''

@description('Makes a NAT gateway with one fixed address, for policies on locations and firewalls that list callers')
param natGatewayEnabled bool = false

@description('NAT gateway of yours for the app\'s subnet, by id')
param natGatewayId string = ''

@description('Public addresses and ranges from which people and pipelines reach the vault, if a network closes it')
param vaultAllowedAddresses string[] = []

// --- Monitoring

@description('Who is told of alerts; empty: nobody, alerts are seen in the portal only')
param alertEmail string = ''

@description('Action groups of yours that are told of alerts, by id')
param actionGroupIds string[] = []

@description('Where the mails of alerts find the runbooks')
param runbookUrl string = 'https://github.com/azure-patrol/patrol/blob/main/docs/operations.md'

@description('Log Analytics workspace of yours, by id; empty: one is made')
param workspaceId string = ''

@description('Days for which logs are kept')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('Gigabytes of logs a day after which the workspace that is made here takes no more; -1: no limit')
@minValue(-1)
param logDailyCapGb int = 1

// --- The landing zone

@description('Tags of yours on every resource')
param tags { *: string } = {}

@description('Names of yours, by the keys of abbreviations.json, like {"keyVault": "kv-payments-patrol"}')
param names { *: string } = {}

@description('Spreads plan and storage over zones, where the region has them')
param zoneRedundant bool = false

@description('Locks vault, identity, storage and Service Bus against deletion')
param lockEnabled bool = false

// --- For deployers who must not assign roles

@description('Assigns the roles; false: somebody else deploys modules/roles.bicep')
param assignRoles bool = true

@description('Subscribes to the vault\'s events; it needs the roles')
param subscribeToVault bool = true

var abbreviations = loadJsonContent('abbreviations.json')

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: names.?resourceGroup ?? '${abbreviations.resourceGroup}${environmentName}'
  location: location
  tags: union(tags, { 'azd-env-name': environmentName })
}

module patrol 'group.bicep' = {
  scope: group
  params: {
    environmentName: environmentName
    location: location
    checkSchedule: checkSchedule
    logLevel: logLevel
    serviceBusTransport: serviceBusTransport
    manifest: manifest
    publicUrl: publicUrl
    azureDevOpsUrl: azureDevOpsUrl
    azureDevOpsVsspsUrl: azureDevOpsVsspsUrl
    otlpEndpoint: otlpEndpoint
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    alwaysReadyHttp: alwaysReadyHttp
    alwaysReadyReconcile: alwaysReadyReconcile
    siteUpdateStrategy: siteUpdateStrategy
    extraSettings: extraSettings
    entraTenantId: entraTenantId
    entraClientId: entraClientId
    entraClientCredential: entraClientCredential
    entraCertificate: entraCertificate
    authenticationEnabled: authenticationEnabled
    unauthenticatedAction: unauthenticatedAction
    vaultPurgeProtection: vaultPurgeProtection
    vaultSoftDeleteDays: vaultSoftDeleteDays
    serviceBusSku: serviceBusSku
    confirmationSenders: confirmationSenders
    vnetEnabled: vnetEnabled
    vnetAddressPrefix: vnetAddressPrefix
    appSubnetId: appSubnetId
    endpointSubnetId: endpointSubnetId
    privateDnsZones: privateDnsZones
    natGatewayEnabled: natGatewayEnabled
    natGatewayId: natGatewayId
    vaultAllowedAddresses: vaultAllowedAddresses
    alertEmail: alertEmail
    actionGroupIds: actionGroupIds
    runbookUrl: runbookUrl
    workspaceId: workspaceId
    logRetentionDays: logRetentionDays
    logDailyCapGb: logDailyCapGb
    tags: tags
    names: names
    zoneRedundant: zoneRedundant
    lockEnabled: lockEnabled
    assignRoles: assignRoles
    subscribeToVault: subscribeToVault
  }
}

// azd keeps these as the environment's values, for its hooks and for the scripts in
// entra/. None is a secret.
@description('Region of the resources')
output AZURE_LOCATION string = patrol.outputs.AZURE_LOCATION

@description('Tenant of the subscription')
output AZURE_TENANT_ID string = patrol.outputs.AZURE_TENANT_ID

@description('Name of the resource group')
output AZURE_RESOURCE_GROUP string = patrol.outputs.AZURE_RESOURCE_GROUP

@description('Address of the dashboard')
output PATROL_DASHBOARD_URL string = patrol.outputs.PATROL_DASHBOARD_URL

@description('Name of the function app')
output PATROL_FUNCTION_APP string = patrol.outputs.PATROL_FUNCTION_APP

@description('Address of the app')
output PATROL_URL string = patrol.outputs.PATROL_URL

@description('Answers 200 when patrol can work')
output PATROL_HEALTH_URL string = patrol.outputs.PATROL_HEALTH_URL

@description('Redirect URI of the app registration')
output PATROL_REDIRECT_URI string = patrol.outputs.PATROL_REDIRECT_URI

@description('The app\'s identity: subject of the federated credential')
output PATROL_IDENTITY_PRINCIPAL_ID string = patrol.outputs.PATROL_IDENTITY_PRINCIPAL_ID

@description('Event Grid\'s identity')
output PATROL_EVENT_IDENTITY_PRINCIPAL_ID string = patrol.outputs.PATROL_EVENT_IDENTITY_PRINCIPAL_ID

@description('Name of the vault')
output PATROL_KEY_VAULT string = patrol.outputs.PATROL_KEY_VAULT

@description('Name of the storage account')
output PATROL_STORAGE_ACCOUNT string = patrol.outputs.PATROL_STORAGE_ACCOUNT

@description('Name of the Service Bus namespace')
output PATROL_SERVICE_BUS string = patrol.outputs.PATROL_SERVICE_BUS

@description('Name of Application Insights')
output PATROL_INSIGHTS string = patrol.outputs.PATROL_INSIGHTS

@description('Topic of patrol\'s events')
output PATROL_EVENT_TOPIC string = patrol.outputs.PATROL_EVENT_TOPIC

@description('Subscription to all of patrol\'s events')
output PATROL_EVENT_SUBSCRIPTION string = patrol.outputs.PATROL_EVENT_SUBSCRIPTION

@description('Queue on which consumers confirm that they have switched')
output PATROL_CONFIRMATION_QUEUE string = patrol.outputs.PATROL_CONFIRMATION_QUEUE

@description('The address from which the app calls, if it is fixed here; else empty')
output PATROL_EGRESS_ADDRESS string = patrol.outputs.PATROL_EGRESS_ADDRESS
