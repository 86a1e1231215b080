// The function app, on Flex Consumption, and all of its settings.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the resource')
param name string

@description('Name of the plan')
param planName string

@description('The identity, by its id')
param identityId string

@description('The identity, as it names itself')
param identityClientId string

@description('Name of the host\'s storage account')
param storageName string

@description('Address of the container of the app\'s package')
param deploymentContainerUrl string

@description('STATE_URL')
param stateUrl string

@description('Name of Application Insights')
param insightsName string

@description('Whether all that leaves the app goes through the subnet')
param inNetwork bool

@description('The subnet, by its id; empty: none')
param subnetId string

@description('Memory of an instance in MB')
param instanceMemoryMB int

@description('The most instances')
param maximumInstanceCount int

@description('Instances kept ready for HTTP')
param alwaysReadyHttp int

@description('Instances kept ready for commands')
param alwaysReadyReconcile int

@description('What a deployment does to what runs')
param siteUpdateStrategy string

@description('Spreads instances over zones')
param zoneRedundant bool

@description('Settings beside patrol\'s; patrol\'s own win')
param extraSettings { *: string }

@description('App Service authentication before the app')
param authenticationEnabled bool

@description('What becomes of a caller that has not signed in')
param unauthenticatedAction 'RedirectToLoginPage' | 'Return401' | 'Return403' | 'AllowAnonymous'

@description('KEY_VAULT_URL')
param keyVaultUrl string

@description('ServiceBusConnection__fullyQualifiedNamespace')
param busHost string

@description('Name of the queue of commands')
param commandQueue string

@description('Name of the queue of the vault\'s events')
param vaultEventQueue string

@description('Name of the queue of consumers\' confirmations')
param confirmationQueue string

@description('Name of the topic of patrol\'s events')
param eventTopic string

@description('CHECK_SCHEDULE')
param checkSchedule string

@description('LOG_LEVEL')
param logLevel string

@description('SERVICE_BUS_TRANSPORT')
param serviceBusTransport string

@description('PATROL_MANIFEST')
param manifest string

@description('PUBLIC_URL; empty: the app\'s own host name')
param publicUrl string

@description('AZURE_DEVOPS_URL')
param azureDevOpsUrl string

@description('AZURE_DEVOPS_VSSPS_URL')
param azureDevOpsVsspsUrl string

@description('ENTRA_TENANT_ID')
param entraTenantId string

@description('ENTRA_CLIENT_ID')
param entraClientId string

@description('ENTRA_CLIENT_CREDENTIAL')
param entraClientCredential string

@description('ENTRA_CERTIFICATE')
param entraCertificate string

@description('OTEL_EXPORTER_OTLP_ENDPOINT; empty: not set')
param otlpEndpoint string

// Without a registration there is nothing to sign in to.
var authenticates = authenticationEnabled && !empty(entraClientId)

// Each group of functions scales by itself, and is kept ready by itself.
var ready = concat(
  alwaysReadyHttp == 0 ? [] : [{ name: 'http', instanceCount: alwaysReadyHttp }],
  alwaysReadyReconcile == 0 ? [] : [{ name: 'function:reconcile', instanceCount: alwaysReadyReconcile }]
)

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': 'patrol' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: 'Enabled'
    // By this identity the platform reads what a setting refers to in a vault.
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: inNetwork ? subnetId : null
    outboundVnetRouting: inNetwork ? { allTraffic: true } : null
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      http20Enabled: true
    }
    functionAppConfig: {
      runtime: {
        name: 'custom'
        version: '1.0'
      }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: deploymentContainerUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: ready
      }
      // A preview, and newer than the types that the compiler knows.
      #disable-next-line BCP037
      siteUpdateStrategy: { type: siteUpdateStrategy }
    }
  }

  // Deployments come with an Entra token, never with a password.
  resource ftp 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: { allow: false }
  }

  resource scm 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: { allow: false }
  }

  // This is the whole set: what is not here is removed. No value is a secret.
  resource settings 'config' = {
    name: 'appsettings'
    properties: {
      ...extraSettings
      AzureWebJobsStorage__accountName: storageName
      AzureWebJobsStorage__credential: 'managedidentity'
      AzureWebJobsStorage__clientId: identityClientId
      APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
      AZURE_CLIENT_ID: identityClientId
      KEY_VAULT_URL: keyVaultUrl
      ServiceBusConnection__fullyQualifiedNamespace: busHost
      ServiceBusConnection__credential: 'managedidentity'
      ServiceBusConnection__clientId: identityClientId
      COMMAND_QUEUE: commandQueue
      VAULT_EVENT_QUEUE: vaultEventQueue
      CONFIRMATION_QUEUE: confirmationQueue
      EVENT_TOPIC: eventTopic
      CHECK_SCHEDULE: checkSchedule
      PATROL_MANIFEST: manifest
      STATE_URL: stateUrl
      LOG_LEVEL: logLevel
      PUBLIC_URL: empty(publicUrl) ? 'https://${app.properties.defaultHostName}' : publicUrl
      ENTRA_TENANT_ID: entraTenantId
      ENTRA_CLIENT_ID: entraClientId
      ENTRA_CLIENT_CREDENTIAL: entraClientCredential
      AZURE_AUTHORITY_HOST: environment().authentication.loginEndpoint
      AZURE_DEVOPS_URL: azureDevOpsUrl
      AZURE_DEVOPS_VSSPS_URL: azureDevOpsVsspsUrl
      // The handler sends by the first, the host receives by the second.
      ...(serviceBusTransport == 'websockets' ? {
        SERVICE_BUS_TRANSPORT: serviceBusTransport
        AzureFunctionsJobHost__extensions__serviceBus__transportType: 'amqpWebSockets'
      } : {})
      ...(entraClientCredential == 'certificate' ? { ENTRA_CERTIFICATE: entraCertificate } : {})
      ...(empty(otlpEndpoint) ? {} : { OTEL_EXPORTER_OTLP_ENDPOINT: otlpEndpoint })
      // App Service's name for: prove yourself by this identity, not by a secret.
      ...(authenticates ? { OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID: identityClientId } : {})
    }
  }

  // The host's own keys still count: this stands before them. What the app itself
  // leaves open stays open. It is written when it is off, too: what a deployment leaves out
  // stays as it was.
  resource authentication 'config' = {
    name: 'authsettingsV2'
    properties: {
      platform: { enabled: authenticates }
      globalValidation: {
        requireAuthentication: authenticates && unauthenticatedAction != 'AllowAnonymous'
        unauthenticatedClientAction: authenticates ? unauthenticatedAction : 'AllowAnonymous'
        redirectToProvider: 'azureactivedirectory'
        excludedPaths: ['/api/health', '/api/signin/callback', '/api/dashboard']
      }
      httpSettings: { requireHttps: true }
      identityProviders: {
        azureActiveDirectory: authenticates
          ? {
              enabled: true
              registration: {
                openIdIssuer: '${environment().authentication.loginEndpoint}${entraTenantId}/v2.0'
                clientId: entraClientId
                clientSecretSettingName: 'OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID'
              }
              validation: { allowedAudiences: [entraClientId, 'api://${entraClientId}'] }
            }
          : { enabled: false }
      }
      login: { tokenStore: { enabled: false } }
    }
    dependsOn: [settings]
  }
}

@description('Name of the resource')
output name string = app.name

@description('Address of the app')
output url string = 'https://${app.properties.defaultHostName}'
