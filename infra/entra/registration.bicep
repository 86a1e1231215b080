// The app registration that people sign in to, for who may make one. It is apart from
// main.bicep: deployers seldom have that right, and the Graph types are fetched when
// this file is built. entra/register.sh and entra/register.ps1 do the same by az.
extension microsoftGraphV1

@description('Name that people see when they sign in')
param displayName string = 'patrol'

@description('What makes the registration the same one at the next deployment: never change it')
@minLength(1)
param uniqueName string

@description('PATROL_REDIRECT_URI of the deployment')
@minLength(1)
param redirectUri string

@description('PATROL_IDENTITY_PRINCIPAL_ID of the deployment: the app proves itself by this identity')
@minLength(36)
@maxLength(36)
param identityPrincipalId string

@description('Asks also for what RevokeUserPats needs; only for identities that are administrators')
param administrator bool = false

@description('Adds the redirect URI of App Service authentication')
param authenticationEnabled bool = false

@description('Adds http://localhost for the command handler sign-in, which runs on an operator\'s machine')
param localSignIn bool = false

@description('Consents for the whole tenant; it needs the right to grant delegated permissions')
param grantConsent bool = false

var scopes = concat(
  ['vso.pats', 'vso.pats_manage'],
  administrator ? ['vso.tokenadministration', 'vso.graph', 'vso.auditlog'] : []
)
var redirectUris = concat(
  [redirectUri],
  authenticationEnabled ? ['${replace(redirectUri, '/api/signin/callback', '')}/.auth/login/aad/callback'] : []
)

// Azure DevOps, as this tenant knows it: the ids of its permissions come from here.
resource azureDevOps 'Microsoft.Graph/servicePrincipals@v1.0' existing = {
  appId: '499b84ac-1321-427f-aa17-267ca6975798'
}

resource registration 'Microsoft.Graph/applications@v1.0' = {
  uniqueName: uniqueName
  displayName: displayName
  signInAudience: 'AzureADMyOrg'
  web: {
    redirectUris: redirectUris
    implicitGrantSettings: {
      enableAccessTokenIssuance: false
      enableIdTokenIssuance: authenticationEnabled
    }
  }
  publicClient: { redirectUris: localSignIn ? ['http://localhost'] : [] }
  requiredResourceAccess: [
    {
      resourceAppId: azureDevOps.appId
      resourceAccess: [
        for scope in scopes: {
          id: filter(azureDevOps.oauth2PermissionScopes, s => s.value == scope)[0].id
          type: 'Scope'
        }
      ]
    }
  ]

  // Instead of a secret: a token of the app's own identity.
  resource identity 'federatedIdentityCredentials' = {
    name: '${registration.uniqueName}/patrol'
    description: 'The managed identity of the function app'
    issuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
    subject: identityPrincipalId
    audiences: ['api://AzureADTokenExchange']
  }
}

resource principal 'Microsoft.Graph/servicePrincipals@v1.0' = {
  appId: registration.appId
}

resource consent 'Microsoft.Graph/oauth2PermissionGrants@v1.0' = if (grantConsent) {
  clientId: principal.id
  resourceId: azureDevOps.id
  consentType: 'AllPrincipals'
  scope: join(scopes, ' ')
}

@description('PATROL_ENTRA_CLIENT_ID of the deployment')
output PATROL_ENTRA_CLIENT_ID string = registration.appId
