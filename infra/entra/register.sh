#!/bin/sh
# Makes or updates the app registration that people sign in to, by az: what
# registration.bicep does. Run it as often as you like. Whoever runs it gets the role
# Patrol.Administrator of the page, and gives the other roles in Entra.
#
#   sh infra/entra/register.sh [-a] [-e] [-l] [-c]
#     -a  also the permissions that RevokeUserPats needs
#     -e  also the redirect URI of App Service authentication
#     -l  also http://localhost, for the command handler sign-in
#     -c  consent for the whole tenant
#
# PATROL_REDIRECT_URI, PATROL_IDENTITY_PRINCIPAL_ID, AZURE_TENANT_ID and AZURE_ENV_NAME
# come from the environment, or from azd's. PAUSE is the time between two tries, in
# seconds.
set -eu

devops=499b84ac-1321-427f-aa17-267ca6975798 # Azure DevOps, in every tenant
scopes='vso.pats vso.pats_manage'
administrator=6bec9d24-1cba-45c6-82ae-7c5b0e13bd90 # the role Patrol.Administrator
consent=no
authentication=no
local=
while getopts aelc option; do
  case $option in
    a) scopes="$scopes vso.tokenadministration vso.graph vso.auditlog" ;;
    e) authentication=yes ;;
    l) local='"http://localhost"' ;;
    c) consent=yes ;;
    *) exit 2 ;;
  esac
done

value() {
  eval "v=\${$1:-}"
  if [ -z "$v" ] && command -v azd >/dev/null 2>&1; then
    v=$(azd env get-value "$1" 2>/dev/null) || v=
  fi
  if [ -z "$v" ]; then
    echo "register: set $1: it is an output of the deployment" >&2
    exit 1
  fi
  printf '%s' "$v"
}
redirect=$(value PATROL_REDIRECT_URI)
subject=$(value PATROL_IDENTITY_PRINCIPAL_ID)
environment=$(value AZURE_ENV_NAME)

# A managed identity proves itself in its own tenant only.
tenant=$(az account show --query tenantId -o tsv)
home=$(value AZURE_TENANT_ID)
if [ "$tenant" != "$home" ]; then
  echo "register: you are signed in to the tenant $tenant, and the app's identity is of $home: az login --tenant $home" >&2
  exit 1
fi
graph=$(az cloud show --query endpoints.microsoftGraphResourceId -o tsv)
login=$(az cloud show --query endpoints.activeDirectory -o tsv)
app="${graph%/}/v1.0/applications(uniqueName='patrol-$environment')"

# Azure DevOps may be unknown in a tenant that has never used it.
az ad sp show --id "$devops" --query id -o tsv >/dev/null 2>&1 || az ad sp create --id "$devops" --query id -o tsv >/dev/null
access=
for scope in $scopes; do
  id=$(az ad sp show --id "$devops" --query "oauth2PermissionScopes[?value=='$scope'].id | [0]" -o tsv)
  if [ -z "$id" ]; then
    echo "register: Azure DevOps has no permission $scope in this tenant" >&2
    exit 1
  fi
  access="$access${access:+,}{\"id\":\"$id\",\"type\":\"Scope\"}"
done

redirects="\"$redirect\""
if [ "$authentication" = yes ]; then
  redirects="$redirects,\"${redirect%/api/signin/callback}/.auth/login/aad/callback\""
fi
tokens=false
[ "$authentication" = no ] || tokens=true

upsert() { # url, body
  az rest --method PATCH --url "$1" --headers 'Content-Type=application/json' 'Prefer=create-if-missing' --body "$2" --output none
}
upsert "$app" "{\"displayName\":\"patrol ($environment)\",\"signInAudience\":\"AzureADMyOrg\",
  \"web\":{\"redirectUris\":[$redirects],\"implicitGrantSettings\":{\"enableAccessTokenIssuance\":false,\"enableIdTokenIssuance\":$tokens}},
  \"appRoles\":[
    {\"id\":\"058fac87-debc-4c33-add8-aa22d7061ba5\",\"value\":\"Patrol.Reader\",\"displayName\":\"Patrol.Reader\",\"description\":\"Sees the page\",\"allowedMemberTypes\":[\"User\"],\"isEnabled\":true},
    {\"id\":\"38e11ffa-1053-4398-8473-c0aa4d2ca81c\",\"value\":\"Patrol.Operator\",\"displayName\":\"Patrol.Operator\",\"description\":\"Rotates, extends, revokes and checks\",\"allowedMemberTypes\":[\"User\"],\"isEnabled\":true},
    {\"id\":\"6bec9d24-1cba-45c6-82ae-7c5b0e13bd90\",\"value\":\"Patrol.Administrator\",\"displayName\":\"Patrol.Administrator\",\"description\":\"Revokes users' PATs and signs people out\",\"allowedMemberTypes\":[\"User\"],\"isEnabled\":true}],
  \"publicClient\":{\"redirectUris\":[$local]},
  \"requiredResourceAccess\":[{\"resourceAppId\":\"$devops\",\"resourceAccess\":[$access]}]}"

# again COMMAND...: what was made a moment ago is not known everywhere in the directory yet.
again() {
  try=1
  until "$@"; do
    if [ "$try" -ge 10 ]; then
      echo "register: the directory has not taken this in ten tries: run it again in a few minutes" >&2
      exit 1
    fi
    try=$((try + 1))
    sleep "${PAUSE:-6}"
  done
}

client=$(again az rest --method GET --url "$app" --query appId -o tsv)
credentials="${graph%/}/v1.0/applications(appId='$client')/federatedIdentityCredentials"
known=$(again az rest --method GET --url "$credentials" --query "value[?name=='patrol'].id | [0]" -o tsv)
prove() { # method, url, name
  az rest --method "$1" --url "$2" --headers 'Content-Type=application/json' --output none --body "{${3:-}
  \"issuer\":\"${login%/}/$tenant/v2.0\",\"subject\":\"$subject\",
  \"audiences\":[\"api://AzureADTokenExchange\"],\"description\":\"The managed identity of the function app\"}"
}
if [ -n "$known" ]; then
  again prove PATCH "$credentials/$known"
else
  again prove POST "$credentials" '"name":"patrol",'
fi

az ad sp show --id "$client" --query id -o tsv >/dev/null 2>&1 || again az ad sp create --id "$client" --query id -o tsv >/dev/null
principal=$(az ad sp show --id "$client" --query id -o tsv)
assigned="${graph%/}/v1.0/servicePrincipals/$principal/appRoleAssignedTo"
if me=$(az ad signed-in-user show --query id -o tsv 2>/dev/null) && [ -n "$me" ]; then
  has=$(az rest --method GET --url "$assigned" --query "value[?principalId=='$me' && appRoleId=='$administrator'] | [0].id" -o tsv)
  [ -n "$has" ] || az rest --method POST --url "$assigned" --headers 'Content-Type=application/json' --output none \
    --body "{\"principalId\":\"$me\",\"resourceId\":\"$principal\",\"appRoleId\":\"$administrator\"}"
else
  echo "register: no person is signed in to az: give somebody the role Patrol.Administrator under Enterprise applications, Users and groups" >&2
fi
if [ "$consent" = yes ]; then
  again az ad app permission admin-consent --id "$client"
fi

if command -v azd >/dev/null 2>&1 && azd env set PATROL_ENTRA_CLIENT_ID "$client" >/dev/null 2>&1; then
  echo "PATROL_ENTRA_CLIENT_ID=$client is in azd's environment. Next: azd provision"
else
  echo "PATROL_ENTRA_CLIENT_ID=$client"
  echo "Next: deploy again with entraClientId=$client"
fi
if [ -e "infra/environments/$environment.json" ]; then
  echo "Put it into infra/environments/$environment.json too, as entraClientId: a pipeline reads it there."
fi
