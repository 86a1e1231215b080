package consumers

import (
	"os"
	"os/exec"
	"testing"
)

// python is Debian's, which python3-azure is for.
const python = "/usr/bin/python3"

// needPython skips without Debian's packages; `make conformance` installs them, and sets
// CONFORMANCE so that nothing is skipped there.
func needPython(t *testing.T) {
	t.Helper()
	err := exec.CommandContext(t.Context(), python, "-c",
		"import azure.servicebus, azure.identity, azure.keyvault.secrets").Run()
	switch {
	case err != nil && os.Getenv("CONFORMANCE") != "":
		t.Fatalf("python3-azure cannot be used: %v", err)
	case err != nil:
		t.Skip("python3-azure is not installed: make conformance does it")
	}
}

func TestThePythonClientSwitchesWithoutARefusedUse(t *testing.T) {
	t.Parallel()
	needPython(t)
	story(t, "../../clients/python", python, "-B", "sample.py")
}

func TestThePythonClientMakesTheGoldenProofs(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(python); err != nil {
		t.Skip("there is no " + python)
	}
	golden(t, "../../clients/python", python, "-B", "-c", `
import json, sys
from patrol_keeper import prove
fields = "value", "pat", "secretVersion", "consumer", "outcome"
print(json.dumps([prove(*(g[f] for f in fields)) for g in json.load(sys.stdin)]))`)
}
