# Makes or updates the app registration that people sign in to, by az: what
# registration.bicep does. Run it as often as you like. Whoever runs it gets the role
# Patrol.Administrator of the page, and gives the other roles in Entra.
#
# PATROL_REDIRECT_URI, PATROL_IDENTITY_PRINCIPAL_ID, AZURE_TENANT_ID and AZURE_ENV_NAME
# come from the environment, or from azd's. It needs PowerShell 7.4.
param(
    [switch] $Administrator,  # also the permissions that RevokeUserPats needs
    [switch] $Authentication, # also the redirect URI of App Service authentication
    [switch] $LocalSignIn,    # also http://localhost, for the command handler sign-in
    [switch] $Consent         # consent for the whole tenant
)
$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $true

$devops = '499b84ac-1321-427f-aa17-267ca6975798' # Azure DevOps, in every tenant
$scopes = @('vso.pats', 'vso.pats_manage')
if ($Administrator) { $scopes += 'vso.tokenadministration', 'vso.graph', 'vso.auditlog' }
$roles = @(
    @{ id = '058fac87-debc-4c33-add8-aa22d7061ba5'; value = 'Patrol.Reader'; description = 'Sees the page' },
    @{ id = '38e11ffa-1053-4398-8473-c0aa4d2ca81c'; value = 'Patrol.Operator'; description = 'Rotates, extends, revokes and checks' },
    @{ id = '6bec9d24-1cba-45c6-82ae-7c5b0e13bd90'; value = 'Patrol.Administrator'; description = 'Revokes users'' PATs and signs people out' }
)
$azd = Get-Command azd -ErrorAction SilentlyContinue

function Get-Value([string] $name) {
    $value = [Environment]::GetEnvironmentVariable($name)
    if (-not $value -and $azd) { try { $value = azd env get-value $name 2>$null } catch { $value = $null } }
    if (-not $value) { throw "register: set ${name}: it is an output of the deployment" }
    $value
}
$redirect = Get-Value PATROL_REDIRECT_URI
$subject = Get-Value PATROL_IDENTITY_PRINCIPAL_ID
$environment = Get-Value AZURE_ENV_NAME

# A managed identity proves itself in its own tenant only.
$tenant = az account show --query tenantId -o tsv
$own = Get-Value AZURE_TENANT_ID
if ($tenant -ne $own) {
    throw "register: you are signed in to the tenant $tenant, and the app's identity is of ${own}: az login --tenant $own"
}
$graph = (az cloud show --query endpoints.microsoftGraphResourceId -o tsv).TrimEnd('/')
$login = (az cloud show --query endpoints.activeDirectory -o tsv).TrimEnd('/')
$app = "$graph/v1.0/applications(uniqueName='patrol-$environment')"

# A service principal may be missing in a tenant that has never used the app.
function Confirm-Principal([string] $id) {
    try { az ad sp show --id $id --query id -o tsv 2>$null | Out-Null }
    catch { az ad sp create --id $id --query id -o tsv | Out-Null }
}
Confirm-Principal $devops
$access = @(foreach ($scope in $scopes) {
    $id = az ad sp show --id $devops --query "oauth2PermissionScopes[?value=='$scope'].id | [0]" -o tsv
    if (-not $id) { throw "register: Azure DevOps has no permission $scope in this tenant" }
    @{ id = $id; type = 'Scope' }
})
$redirects = @($redirect)
if ($Authentication) { $redirects += ($redirect -replace '/api/signin/callback$', '') + '/.auth/login/aad/callback' }

# The body goes by a file: shells differ in what they do to quotation marks.
function Send-Object([string] $method, [string] $url, [hashtable] $body, [string[]] $headers = @()) {
    $file = New-TemporaryFile
    try {
        $body | ConvertTo-Json -Depth 8 | Set-Content -Path $file -Encoding utf8
        az rest --method $method --url $url --headers 'Content-Type=application/json' @headers --body "@$file" --output none
    }
    finally { Remove-Item $file }
}

# What was made a moment ago is not known everywhere in the directory yet.
function Invoke-Again([scriptblock] $what) {
    for ($try = 1; ; $try++) {
        try { return & $what }
        catch {
            if ($try -ge 10) { throw "register: the directory has not taken this in ten tries: run it again in a few minutes. $_" }
            Start-Sleep -Seconds 6
        }
    }
}
Send-Object PATCH $app @{
    displayName            = "patrol ($environment)"
    signInAudience         = 'AzureADMyOrg'
    web                    = @{
        redirectUris          = $redirects
        implicitGrantSettings = @{ enableAccessTokenIssuance = $false; enableIdTokenIssuance = [bool] $Authentication }
    }
    appRoles               = @(foreach ($role in $roles) {
        @{
            id = $role.id; value = $role.value; displayName = $role.value; description = $role.description
            allowedMemberTypes = @('User'); isEnabled = $true
        }
    })
    publicClient           = @{ redirectUris = @(if ($LocalSignIn) { 'http://localhost' }) }
    requiredResourceAccess = @(@{ resourceAppId = $devops; resourceAccess = $access })
} 'Prefer=create-if-missing'

$client = Invoke-Again { az rest --method GET --url $app --query appId -o tsv }
$credentials = "$graph/v1.0/applications(appId='$client')/federatedIdentityCredentials"
$known = Invoke-Again { az rest --method GET --url $credentials --query "value[?name=='patrol'].id | [0]" -o tsv }
$credential = @{
    issuer      = "$login/$tenant/v2.0"
    subject     = $subject
    audiences   = @('api://AzureADTokenExchange')
    description = 'The managed identity of the function app'
}
if ($known) { Invoke-Again { Send-Object PATCH "$credentials/$known" $credential } }
else { Invoke-Again { Send-Object POST $credentials ($credential + @{ name = 'patrol' }) } }

Invoke-Again { Confirm-Principal $client }
$principal = az ad sp show --id $client --query id -o tsv
$assigned = "$graph/v1.0/servicePrincipals/$principal/appRoleAssignedTo"
$administrator = $roles[2].id
$me = $null
try { $me = az ad signed-in-user show --query id -o tsv 2>$null } catch { $me = $null }
if ($me) {
    $has = az rest --method GET --url $assigned --query "value[?principalId=='$me' && appRoleId=='$administrator'] | [0].id" -o tsv
    if (-not $has) {
        $file = New-TemporaryFile
        try {
            @{ principalId = $me; resourceId = $principal; appRoleId = $administrator } | ConvertTo-Json | Set-Content -Path $file -Encoding utf8
            az rest --method POST --url $assigned --headers 'Content-Type=application/json' --output none --body "@$file"
        }
        finally { Remove-Item $file }
    }
}
else {
    Write-Warning 'register: no person is signed in to az: give somebody the role Patrol.Administrator under Enterprise applications, Users and groups'
}
if ($Consent) { Invoke-Again { az ad app permission admin-consent --id $client } }

$kept = $false
if ($azd) { try { azd env set PATROL_ENTRA_CLIENT_ID $client 2>$null | Out-Null; $kept = $true } catch { $kept = $false } }
if ($kept) {
    Write-Output "PATROL_ENTRA_CLIENT_ID=$client is in azd's environment. Next: azd provision"
}
else {
    Write-Output "PATROL_ENTRA_CLIENT_ID=$client"
    Write-Output "Next: deploy again with entraClientId=$client"
}
if (Test-Path "infra/environments/$environment.json") {
    Write-Output "Put it into infra/environments/$environment.json too, as entraClientId: a pipeline reads it there."
}
