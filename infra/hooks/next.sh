#!/bin/sh
# Says the one thing that comes next, and where patrol is. azd runs it with the
# environment's values.
set -eu

echo
if [ -z "${PATROL_URL:-}" ]; then
  echo 'Next: azd provision. Nothing is there yet.'
  exit 0
fi
if [ -z "${PATROL_ENTRA_CLIENT_ID:-}" ]; then
  cat <<EOF
Next: the app registration that people sign in to. Who may make one runs

  sh infra/entra/register.sh

and then: azd provision
EOF
else
  cat <<EOF
Next: each identity of pats.yaml signs in once. This is the link, to be opened by its user:

  $PATROL_URL/api/identities/<identity>/signin
EOF
fi
cat <<EOF

If the first calls answer 403 or 500: roles take up to ten minutes. docs/deploy.md knows more.

dashboard   $PATROL_URL/api/dashboard
EOF
