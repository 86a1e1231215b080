#!/bin/sh
# Says where patrol is and what comes next. azd runs it with the environment's values.
set -eu

echo
echo "patrol   ${PATROL_URL:-not provisioned yet}"
echo "health   ${PATROL_HEALTH_URL:-}"
echo
if [ -z "${PATROL_ENTRA_CLIENT_ID:-}" ]; then
  cat <<EOF
Next: the app registration that people sign in to. Who may make one runs

  sh infra/entra/register.sh

and then: azd provision
EOF
else
  cat <<EOF
Next: each identity of pats.yaml signs in once. This gives the key of the link:

  az functionapp keys list -g ${AZURE_RESOURCE_GROUP:-} -n ${PATROL_FUNCTION_APP:-} --query functionKeys.default -o tsv

and this is the link, to be opened by that user:

  ${PATROL_URL:-}/api/identities/<identity>/signin?code=<key>
EOF
fi
echo
echo "If the first calls answer 403 or 500: roles take up to ten minutes. docs/deploy.md knows more."
