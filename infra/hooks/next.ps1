# Says the one thing that comes next, and where patrol is. azd runs it with the
# environment's values.
$ErrorActionPreference = 'Stop'

Write-Output ''
if (-not $env:PATROL_URL) {
    Write-Output 'Next: azd provision. Nothing is there yet.'
    exit 0
}
if (-not $env:PATROL_ENTRA_CLIENT_ID) {
    Write-Output @'
Next: the app registration that people sign in to. Who may make one runs

  ./infra/entra/register.ps1

and then: azd provision
'@
}
else {
    Write-Output @"
Next: each identity of pats.yaml signs in once. This is the link, to be opened by its user:

  $env:PATROL_URL/api/identities/<identity>/signin
"@
}
Write-Output @"

If the first calls answer 403 or 500: roles take up to ten minutes. docs/deploy.md knows more.

dashboard   $env:PATROL_URL/api/dashboard
"@
