#!/bin/sh
# Waits until the app answers, and compares what runs with what was deployed.
#
#   sh infra/environments/deployed.sh dist/version.json
#
# AZURE_RESOURCE_GROUP and PATROL_FUNCTION_APP name the app: outputs of the deployment.
# PAUSE is the time between two tries, in seconds.
set -eu

file=${1:?name the file with version and commit that packaging has written}
group=${AZURE_RESOURCE_GROUP:?set it to the resource group of the app}
app=${PATROL_FUNCTION_APP:?set it to the name of the function app, an output of the deployment}
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# field NAME: a text of the JSON on the standard input.
field() { sed -nE "s/.*\"$1\" *: *\"([^\"]*)\".*/\1/p" | head -n 1; }

commit=$(field commit <"$file")
version=$(field version <"$file")
host=$(az functionapp show --resource-group "$group" --name "$app" --query defaultHostName --output tsv)
key=$(az functionapp keys list --resource-group "$group" --name "$app" --query functionKeys.default --output tsv)

status=none
running=none
try=0
while [ "$try" -lt 30 ]; do
  # 503 is an answer of patrol too: somebody has to sign in.
  status=$(curl -sS -o "$answer" -w '%{http_code}' "https://$host/api/health" || true)
  if [ "$status" = 200 ] || { [ "$status" = 503 ] && grep -q sign-in "$answer"; }; then
    # The key goes by the standard input: arguments can be seen by others.
    printf 'header = "x-functions-key: %s"\n' "$key" | curl -sS -K - -o "$answer" "https://$host/api/status" || true
    running=$(field commit <"$answer")
    if [ "$running" = "$commit" ]; then
      echo "deployed: $app runs patrol $version ($commit), health $status"
      exit 0
    fi
  fi
  sleep "${PAUSE:-10}"
  try=$((try + 1))
done
if [ "$running" != none ]; then
  echo "deployed: $app runs the commit ${running:-(unknown)}, not $commit, after five minutes: deploy again, or see who else deploys" >&2
else
  echo "deployed: $app has not become healthy in five minutes; its last answer was $status: GET /api/status with a key says why" >&2
fi
exit 1
