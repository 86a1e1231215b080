// patrol on Azure: one resource group with all that the app needs. Nothing in it has
// a key or a password: every connection is by managed identity.
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

@description('When the sweep runs: NCRONTAB with six fields, UTC; empty: every six hours')
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

// --- Network

@description('Puts the app into a virtual network, and storage, vault and (Premium) Service Bus behind private endpoints')
param vnetEnabled bool = false

@description('Address range of the virtual network, /25 or larger')
param vnetAddressPrefix string = '10.0.0.0/24'

// --- Monitoring

@description('Who is told of alerts; empty: nobody, alerts are seen in the portal only')
param alertEmail string = ''

@description('Days for which logs are kept')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

// --- For deployers who must not assign roles

@description('Assigns the roles; false: somebody else deploys modules/roles.bicep')
param assignRoles bool = true

@description('Subscribes to the vault\'s events; it needs the roles')
param subscribeToVault bool = true

var abbreviations = loadJsonContent('abbreviations.json')
var token = uniqueString(subscription().id, environmentName, location)
var tags = { 'azd-env-name': environmentName }

var commandQueue = 'pat-commands'
var vaultEventQueue = 'vault-events'
var eventTopic = 'pat-events'
var eventSubscription = 'all'
var stateContainer = 'patrol-state'

var insightsName = '${abbreviations.applicationInsights}${token}'
var storageName = '${abbreviations.storageAccount}${token}'
var vaultName = '${abbreviations.keyVault}${token}'
var busName = '${abbreviations.serviceBus}${token}'

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: '${abbreviations.resourceGroup}${environmentName}'
  location: location
  tags: tags
}

module identities 'modules/identities.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    appIdentityName: '${abbreviations.managedIdentity}${token}'
    eventIdentityName: '${abbreviations.managedIdentity}events-${token}'
  }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    workspaceName: '${abbreviations.logAnalytics}${token}'
    insightsName: insightsName
    retentionDays: logRetentionDays
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    name: storageName
    stateContainer: stateContainer
    publicAccess: !vnetEnabled
  }
}

module vault 'modules/vault.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    name: vaultName
    publicAccess: !vnetEnabled
    purgeProtection: vaultPurgeProtection
    softDeleteDays: vaultSoftDeleteDays
    workspaceId: monitoring.outputs.workspaceId
  }
}

module bus 'modules/bus.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    name: busName
    sku: serviceBusSku
    publicAccess: !(vnetEnabled && serviceBusSku == 'Premium')
    commandQueue: commandQueue
    vaultEventQueue: vaultEventQueue
    eventTopic: eventTopic
    eventSubscription: eventSubscription
    workspaceId: monitoring.outputs.workspaceId
  }
}

module network 'modules/network.bicep' = if (vnetEnabled) {
  scope: group
  params: {
    location: location
    tags: tags
    name: '${abbreviations.virtualNetwork}${token}'
    securityGroupName: '${abbreviations.networkSecurityGroup}${token}'
    addressPrefix: vnetAddressPrefix
  }
}

module endpoints 'modules/endpoints.bicep' = if (vnetEnabled) {
  scope: group
  params: {
    location: location
    tags: tags
    namePrefix: '${abbreviations.privateEndpoint}${token}'
    networkId: network!.outputs.networkId
    subnetId: network!.outputs.endpointSubnetId
    storageId: storage.outputs.id
    vaultId: vault.outputs.id
    busId: bus.outputs.id
    busEndpoint: serviceBusSku == 'Premium'
  }
}

// The names of roles' assignments are made from principal ids: one made anew gets
// assignments of its own. For that what-if is less precise about them.
module roles 'modules/roles.bicep' = if (assignRoles) {
  scope: group
  params: {
    #disable-next-line what-if-short-circuiting
    appPrincipalId: identities.outputs.appPrincipalId
    #disable-next-line what-if-short-circuiting
    eventPrincipalId: identities.outputs.eventPrincipalId
    storageName: storageName
    stateContainer: stateContainer
    vaultName: vaultName
    busName: busName
    commandQueue: commandQueue
    vaultEventQueue: vaultEventQueue
    eventTopic: eventTopic
    insightsName: insightsName
  }
  dependsOn: [storage, vault, bus, monitoring]
}

module app 'modules/app.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    name: '${abbreviations.functionApp}${token}'
    planName: '${abbreviations.functionPlan}${token}'
    identityId: identities.outputs.appId
    identityClientId: identities.outputs.appClientId
    storageName: storageName
    deploymentContainerUrl: storage.outputs.deploymentContainerUrl
    stateUrl: storage.outputs.stateUrl
    insightsName: insightsName
    workspaceId: monitoring.outputs.workspaceId
    inNetwork: vnetEnabled
    subnetId: network.?outputs.appSubnetId ?? ''
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    alwaysReadyHttp: alwaysReadyHttp
    authenticationEnabled: authenticationEnabled
    unauthenticatedAction: unauthenticatedAction
    keyVaultUrl: 'https://${vaultName}${environment().suffixes.keyvaultDns}'
    busHost: bus.outputs.host
    commandQueue: commandQueue
    vaultEventQueue: vaultEventQueue
    eventTopic: eventTopic
    checkSchedule: empty(checkSchedule) ? '0 0 */6 * * *' : checkSchedule
    logLevel: logLevel
    serviceBusTransport: serviceBusTransport
    manifest: manifest
    publicUrl: publicUrl
    azureDevOpsUrl: azureDevOpsUrl
    azureDevOpsVsspsUrl: azureDevOpsVsspsUrl
    entraTenantId: empty(entraTenantId) ? tenant().tenantId : entraTenantId
    entraClientId: entraClientId
    entraClientCredential: entraClientCredential
    entraCertificate: entraCertificate
    otlpEndpoint: otlpEndpoint
  }
  dependsOn: [roles, endpoints]
}

module events 'modules/events.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    name: '${abbreviations.eventGridSystemTopic}${token}'
    vaultId: vault.outputs.id
    identityId: identities.outputs.eventId
    queueId: bus.outputs.vaultEventQueueId
    subscribe: subscribeToVault
    workspaceId: monitoring.outputs.workspaceId
  }
  dependsOn: [roles]
}

module alerts 'modules/alerts.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    actionGroupName: '${abbreviations.actionGroup}${token}'
    namePrefix: 'patrol-${environmentName}'
    email: alertEmail
    workspaceId: monitoring.outputs.workspaceId
    busId: bus.outputs.id
    systemTopicId: events.outputs.systemTopicId
  }
}

module workbook 'modules/workbook.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    displayName: 'patrol (${environmentName})'
    workspaceId: monitoring.outputs.workspaceId
  }
}

// azd keeps these as the environment's values, for its hooks and for the scripts in
// entra/. None is a secret.
@description('Region of the resources')
output AZURE_LOCATION string = location

@description('Tenant of the subscription')
output AZURE_TENANT_ID string = tenant().tenantId

@description('Name of the resource group')
output AZURE_RESOURCE_GROUP string = group.name

@description('Name of the function app')
output PATROL_FUNCTION_APP string = app.outputs.name

@description('Address of the app')
output PATROL_URL string = app.outputs.url

@description('Answers 200 when patrol can work')
output PATROL_HEALTH_URL string = '${app.outputs.url}/api/health'

@description('Redirect URI of the app registration')
output PATROL_REDIRECT_URI string = '${empty(publicUrl) ? app.outputs.url : publicUrl}/api/signin/callback'

@description('The app\'s identity: subject of the federated credential')
output PATROL_IDENTITY_PRINCIPAL_ID string = identities.outputs.appPrincipalId

@description('Event Grid\'s identity')
output PATROL_EVENT_IDENTITY_PRINCIPAL_ID string = identities.outputs.eventPrincipalId

@description('Name of the vault')
output PATROL_KEY_VAULT string = vaultName

@description('Name of the storage account')
output PATROL_STORAGE_ACCOUNT string = storageName

@description('Name of the Service Bus namespace')
output PATROL_SERVICE_BUS string = busName

@description('Name of Application Insights')
output PATROL_INSIGHTS string = insightsName

@description('Topic of patrol\'s events')
output PATROL_EVENT_TOPIC string = eventTopic

@description('Subscription to all of patrol\'s events')
output PATROL_EVENT_SUBSCRIPTION string = eventSubscription
