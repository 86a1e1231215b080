// patrol in a resource group: all that the app needs. Nothing in it has a key or a
// password: every connection is by managed identity. Deploy this file where somebody else
// makes the groups; main.bicep makes one, and deploys this into it.

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
var token = uniqueString(subscription().id, environmentName, location)
var allTags = union(tags, { 'azd-env-name': environmentName })

var commandQueue = 'pat-commands'
var vaultEventQueue = 'vault-events'
var confirmationQueue = 'pat-confirmations'
var eventTopic = 'pat-events'
var eventSubscription = 'all'
var stateContainer = 'patrol-state'

// What the deployment refuses. The schedule's fields: second, minute, hour, day, month,
// weekday. Alerts ask for the last two sweeps, and Azure's look back for two days at most.
var schedule = empty(checkSchedule) ? '0 0 */6 * * *' : checkSchedule
var fields = filter(split(schedule, ' '), f => !empty(f))
var isDaily = length(fields) == 6 && fields[3] == '*' && fields[4] == '*' && (fields[5] == '*' || fields[5] == '?')
var hourField = length(fields) == 6 ? fields[2] : ''
var sweepHours = hourField == '*' ? 1 : startsWith(hourField, '*/') ? int(substring(hourField, 2)) : 24
var sweepWindow = isDaily
  ? (sweepHours <= 3 ? 'PT6H' : sweepHours <= 12 ? 'P1D' : 'P2D')
  : fail('checkSchedule must have six fields and sweep at least once a day: alerts look back for two days at most')
var signInTenant = empty(entraTenantId) || toLower(entraTenantId) == tenant().tenantId
  ? tenant().tenantId
  : entraClientCredential == 'managed-identity'
      ? fail('entraTenantId is another tenant than the subscription\'s: a managed identity proves itself in its own tenant only; use a certificate')
      : entraTenantId
var vaultAddresses = empty(vaultAllowedAddresses) || vnetEnabled
  ? vaultAllowedAddresses
  : fail('vaultAllowedAddresses needs vnetEnabled: without a network they would shut the app itself out of the vault')

// Subnets of yours, or a network that is made here.
var makesNetwork = empty(appSubnetId) == empty(endpointSubnetId)
  ? vnetEnabled && empty(appSubnetId)
  : fail('appSubnetId and endpointSubnetId belong together: give both subnets, or neither')

var insightsName = names.?applicationInsights ?? '${abbreviations.applicationInsights}${token}'
var storageName = names.?storageAccount ?? '${abbreviations.storageAccount}${token}'
var vaultName = names.?keyVault ?? '${abbreviations.keyVault}${token}'
var busName = names.?serviceBus ?? '${abbreviations.serviceBus}${token}'

module identities 'modules/identities.bicep' = {
  params: {
    location: location
    tags: allTags
    appIdentityName: names.?managedIdentity ?? '${abbreviations.managedIdentity}${token}'
    eventIdentityName: names.?eventIdentity ?? '${abbreviations.managedIdentity}events-${token}'
    lockEnabled: lockEnabled
  }
}

module monitoring 'modules/monitoring.bicep' = {
  params: {
    location: location
    tags: allTags
    workspaceName: names.?logAnalytics ?? '${abbreviations.logAnalytics}${token}'
    insightsName: insightsName
    retentionDays: logRetentionDays
    dailyCapGb: logDailyCapGb
    existingWorkspaceId: workspaceId
  }
}

module storage 'modules/storage.bicep' = {
  params: {
    location: location
    tags: allTags
    name: storageName
    stateContainer: stateContainer
    publicAccess: !vnetEnabled
    zoneRedundant: zoneRedundant
    lockEnabled: lockEnabled
  }
}

module vault 'modules/vault.bicep' = {
  params: {
    location: location
    tags: allTags
    name: vaultName
    publicAccess: !vnetEnabled
    allowedAddresses: vaultAddresses
    lockEnabled: lockEnabled
    purgeProtection: vaultPurgeProtection
    softDeleteDays: vaultSoftDeleteDays
    workspaceId: monitoring.outputs.workspaceId
  }
}

module bus 'modules/bus.bicep' = {
  params: {
    location: location
    tags: allTags
    name: busName
    sku: serviceBusSku
    publicAccess: !(vnetEnabled && serviceBusSku == 'Premium')
    commandQueue: commandQueue
    vaultEventQueue: vaultEventQueue
    confirmationQueue: confirmationQueue
    lockEnabled: lockEnabled
    eventTopic: eventTopic
    eventSubscription: eventSubscription
    workspaceId: monitoring.outputs.workspaceId
  }
}

module network 'modules/network.bicep' = if (makesNetwork) {
  params: {
    location: location
    tags: allTags
    name: names.?virtualNetwork ?? '${abbreviations.virtualNetwork}${token}'
    securityGroupName: names.?networkSecurityGroup ?? '${abbreviations.networkSecurityGroup}${token}'
    addressPrefix: vnetAddressPrefix
    natGatewayEnabled: natGatewayEnabled
    natGatewayName: names.?natGateway ?? '${abbreviations.natGateway}${token}'
    publicAddressName: names.?publicAddress ?? '${abbreviations.publicAddress}${token}'
    existingNatGatewayId: natGatewayId
    zoneRedundant: zoneRedundant
  }
}

module endpoints 'modules/endpoints.bicep' = if (vnetEnabled) {
  params: {
    location: location
    tags: allTags
    namePrefix: names.?privateEndpoint ?? '${abbreviations.privateEndpoint}${token}'
    networkId: makesNetwork ? network!.outputs.networkId : split(endpointSubnetId, '/subnets/')[0]
    subnetId: makesNetwork ? network!.outputs.endpointSubnetId : endpointSubnetId
    zones: privateDnsZones
    storageId: storage.outputs.id
    vaultId: vault.outputs.id
    busId: bus.outputs.id
    busEndpoint: serviceBusSku == 'Premium'
  }
}

// The names of roles' assignments are made from principal ids: one made anew gets
// assignments of its own. For that what-if is less precise about them.
module roles 'modules/roles.bicep' = if (assignRoles) {
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
    confirmationQueue: confirmationQueue
    confirmationSenders: confirmationSenders
    eventTopic: eventTopic
    insightsName: insightsName
  }
  dependsOn: [storage, vault, bus, monitoring]
}

module app 'modules/app.bicep' = {
  params: {
    location: location
    tags: allTags
    name: names.?functionApp ?? '${abbreviations.functionApp}${token}'
    planName: names.?functionPlan ?? '${abbreviations.functionPlan}${token}'
    identityId: identities.outputs.appId
    identityClientId: identities.outputs.appClientId
    storageName: storageName
    deploymentContainerUrl: storage.outputs.deploymentContainerUrl
    stateUrl: storage.outputs.stateUrl
    insightsName: insightsName
    inNetwork: vnetEnabled
    subnetId: makesNetwork ? network!.outputs.appSubnetId : appSubnetId
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    alwaysReadyHttp: alwaysReadyHttp
    alwaysReadyReconcile: alwaysReadyReconcile
    siteUpdateStrategy: siteUpdateStrategy
    zoneRedundant: zoneRedundant
    extraSettings: extraSettings
    authenticationEnabled: authenticationEnabled
    unauthenticatedAction: unauthenticatedAction
    keyVaultUrl: 'https://${vaultName}${environment().suffixes.keyvaultDns}'
    busHost: bus.outputs.host
    commandQueue: commandQueue
    vaultEventQueue: vaultEventQueue
    confirmationQueue: confirmationQueue
    eventTopic: eventTopic
    checkSchedule: schedule
    logLevel: logLevel
    serviceBusTransport: serviceBusTransport
    manifest: manifest
    publicUrl: publicUrl
    azureDevOpsUrl: azureDevOpsUrl
    azureDevOpsVsspsUrl: azureDevOpsVsspsUrl
    entraTenantId: signInTenant
    entraClientId: entraClientId
    entraClientCredential: entraClientCredential
    entraCertificate: entraCertificate
    otlpEndpoint: otlpEndpoint
  }
  dependsOn: [roles, endpoints]
}

module events 'modules/events.bicep' = {
  params: {
    location: location
    tags: allTags
    name: names.?eventGridSystemTopic ?? '${abbreviations.eventGridSystemTopic}${token}'
    vaultId: vault.outputs.id
    identityId: identities.outputs.eventId
    queueId: bus.outputs.vaultEventQueueId
    subscribe: subscribeToVault
    workspaceId: monitoring.outputs.workspaceId
  }
  dependsOn: [roles]
}

module alerts 'modules/alerts.bicep' = {
  params: {
    location: location
    tags: allTags
    actionGroupName: names.?actionGroup ?? '${abbreviations.actionGroup}${token}'
    namePrefix: 'patrol-${environmentName}'
    email: alertEmail
    actionGroupIds: actionGroupIds
    runbookUrl: runbookUrl
    dashboardUrl: '${empty(publicUrl) ? app.outputs.url : publicUrl}/api/dashboard'
    sweepWindow: sweepWindow
    insightsName: insightsName
    commandQueue: commandQueue
    vaultEventQueue: vaultEventQueue
    confirmationQueue: confirmationQueue
    workspaceId: monitoring.outputs.workspaceId
    busId: bus.outputs.id
    systemTopicId: events.outputs.systemTopicId
  }
}

module workbook 'modules/workbook.bicep' = {
  params: {
    location: location
    tags: allTags
    displayName: 'patrol (${environmentName})'
    insightsName: insightsName
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
output AZURE_RESOURCE_GROUP string = resourceGroup().name

@description('Address of the dashboard')
output PATROL_DASHBOARD_URL string = '${empty(publicUrl) ? app.outputs.url : publicUrl}/api/dashboard'

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

@description('Queue on which consumers confirm that they have switched')
output PATROL_CONFIRMATION_QUEUE string = confirmationQueue

@description('The address from which the app calls, if it is fixed here; else empty')
output PATROL_EGRESS_ADDRESS string = natGatewayEnabled ? (network.?outputs.egressAddress ?? '') : ''
