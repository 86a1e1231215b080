# Says where patrol is and what comes next. azd runs it with the environment's values.
$ErrorActionPreference = 'Stop'

Write-Output ''
Write-Output "patrol   $(if ($env:PATROL_URL) { $env:PATROL_URL } else { 'not provisioned yet' })"
Write-Output "health   $env:PATROL_HEALTH_URL"
Write-Output ''
if (-not $env:PATROL_ENTRA_CLIENT_ID) {
    Write-Output @'
Next: the app registration that people sign in to. Who may make one runs

  ./infra/entra/register.ps1

and then: azd provision
'@
}
else {
    Write-Output @"
Next: each identity of pats.yaml signs in once. This gives the key of the link:

  az functionapp keys list -g $env:AZURE_RESOURCE_GROUP -n $env:PATROL_FUNCTION_APP --query functionKeys.default -o tsv

and this is the link, to be opened by that user:

  $env:PATROL_URL/api/identities/<identity>/signin?code=<key>
"@
}
Write-Output ''
Write-Output 'If the first calls answer 403 or 500: roles take up to ten minutes. docs/deploy.md knows more.'
