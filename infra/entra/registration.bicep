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

@description('Object ids of people or groups who get the role Patrol.Administrator. Empty: whoever deploys this. They give the other roles, under the enterprise application')
param pageAdministrators string[] = []

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
// The roles of the page for people. Their ids never change: assignments name them.
var roles = [
  {
    id: '058fac87-debc-4c33-add8-aa22d7061ba5'
    value: 'Patrol.Reader'
    description: 'Sees the page'
  }
  {
    id: '38e11ffa-1053-4398-8473-c0aa4d2ca81c'
    value: 'Patrol.Operator'
    description: 'Rotates, extends, revokes and checks'
  }
  {
    id: '6bec9d24-1cba-45c6-82ae-7c5b0e13bd90'
    value: 'Patrol.Administrator'
    description: 'Revokes users\' PATs and signs people out'
  }
]
var administrators = empty(pageAdministrators) ? [deployer().objectId] : pageAdministrators

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
  appRoles: [
    for role in roles: {
      id: role.id
      value: role.value
      displayName: role.value
      description: role.description
      allowedMemberTypes: ['User']
      isEnabled: true
    }
  ]
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

resource assignments 'Microsoft.Graph/appRoleAssignedTo@v1.0' = [
  for id in administrators: {
    appRoleId: roles[2].id
    principalId: id
    resourceId: principal.id
  }
]

resource consent 'Microsoft.Graph/oauth2PermissionGrants@v1.0' = if (grantConsent) {
  clientId: principal.id
  resourceId: azureDevOps.id
  consentType: 'AllPrincipals'
  scope: join(scopes, ' ')
}

@description('PATROL_ENTRA_CLIENT_ID of the deployment')
output PATROL_ENTRA_CLIENT_ID string = registration.appId
