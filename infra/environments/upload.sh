#!/bin/sh
# Uploads the app's package. Website Contributor on the app is enough for it.
#
#   sh infra/environments/upload.sh dist/app.zip
#
# AZURE_RESOURCE_GROUP and PATROL_FUNCTION_APP name the app: outputs of the deployment.
# PAUSE is the time between two tries, in seconds.
set -eu

package=${1:?name the package}
group=${AZURE_RESOURCE_GROUP:?set it to the resource group of the app}
app=${PATROL_FUNCTION_APP:?set it to the name of the function app, an output of the deployment}
said=$(mktemp)
trap 'rm -f "$said"' EXIT

try=1
until az functionapp deployment source config-zip --resource-group "$group" --name "$app" --src "$package" --output none 2>"$said"; do
  cat "$said" >&2
  # A role that was given a moment ago is not known everywhere yet. Nothing else is worth a second try.
  if ! grep -qE '\b403\b|Forbidden|AuthorizationFailed' "$said" || [ "$try" -ge 8 ]; then
    echo "upload: the package could not be uploaded to $app; docs/deploy.md lists what goes wrong the first time" >&2
    exit 1
  fi
  echo "upload: 403: a role is not effective yet, once more in ${PAUSE:-60} s ($try of 7)" >&2
  sleep "${PAUSE:-60}"
  try=$((try + 1))
done
cat "$said" >&2
echo "upload: $package is on $app"
