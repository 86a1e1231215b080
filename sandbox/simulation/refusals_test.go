package simulation_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// twoLifetimes are those of quickPAT.
const twoLifetimes = 4 * day

// Something refuses for two lifetimes of the PAT: no PAT dies where it can be kept alive,
// nothing ends that should not, it is told as I9 has it, by events and by the line that
// the shipped alert reads, and no function runs over and over. The judge holds most of it.
func TestWhatRefusesForTwoLifetimesIsToldAndEndsNothing(t *testing.T) {
	forbidden := func(service, operation string) faults.Fault {
		f := refusing(service, operation, http.StatusForbidden)
		f.Body = `{"error":{"code":"Forbidden","innererror":{"code":"ForbiddenByRbac"}}}`
		return f
	}
	for _, tc := range []struct {
		what    string
		refusal simulation.Refusal
		faults  []faults.Fault
	}{
		{"the topic", simulation.Refusal{Scope: string(rotation.ScopeBus)},
			[]faults.Fault{refusing("servicebus", "send "+cloud.EventTopic, http.StatusForbidden)}},
		{"the vault", simulation.Refusal{Scope: string(rotation.ScopeVault), Prevents: true},
			[]faults.Fault{forbidden(keyvault.Service, "")}},
		{"the vault, for a reason that may pass", simulation.Refusal{Scope: string(rotation.ScopeVault), Prevents: true,
			MayPass: true}, []faults.Fault{refusing(keyvault.Service, "", http.StatusServiceUnavailable)}},
		{"Entra", simulation.Refusal{Scope: string(rotation.ScopeIdentity), Prevents: true},
			[]faults.Fault{{Service: "entra", Operation: "token refresh_token", Mode: faults.Status, Status: 400,
				Body: `{"error":"invalid_client","error_description":"AADSTS700027: no","error_codes":[700027]}`}}},
		{"the organization", simulation.Refusal{Scope: string(rotation.ScopeOrganization), Prevents: true},
			[]faults.Fault{refusing(devops.ServiceName, "", http.StatusUnauthorized)}},
		{"the state", simulation.Refusal{Scope: string(rotation.ScopeState)},
			[]faults.Fault{forbidden(blob.Service, "")}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			s := simulation.Scenario{Name: tc.what, Manifest: quickPAT, After: 27 * time.Hour,
				Prepare: func(w *simulation.World) {
					provisioned(w)
					time.Sleep(time.Hour)
				},
				Act: func(w *simulation.World) {
					end := w.Refuse(tc.refusal, tc.faults...)
					time.Sleep(twoLifetimes)
					end()
				}}
			res := mustHold(t, s, nil)
			if line := `"msg":"check incomplete","scope":"` + tc.refusal.Scope; !strings.Contains(res.Output, line) {
				t.Errorf("the log has no line with %s", line)
			}
		})
	}
}
