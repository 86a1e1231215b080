package entra_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestAnErrorOfTheAuthorizePageIsUnderstood(t *testing.T) {
	const trace = " Trace ID: 0a6e9b52-58dd-4d1a-a3c9-b5c1c5b8a0b1 Correlation ID: canary"
	for _, tc := range []struct {
		name, sub, description string
		code                   string
		class                  rotation.Class
		cause                  entra.Cause
		admin                  bool
		says                   string
	}{
		{"access_denied", "", "AADSTS65004: canary" + trace,
			"AADSTS65004", rotation.SignIn, entra.ConsentMissing, false, "declined"},
		{"access_denied", "cancel", "canary" + trace,
			"access_denied", rotation.SignIn, entra.Unknown, false, "cancelled"},
		{"access_denied", "", "", "access_denied", rotation.SignIn, entra.Unknown, false, "cancelled"},
		{"consent_required", "", "AADSTS65001: canary",
			"AADSTS65001", rotation.SignIn, entra.ConsentMissing, true, "admin consent"},
		{"interaction_required", "", "AADSTS65001: canary",
			"AADSTS65001", rotation.SignIn, entra.ConsentMissing, true, "admin consent"},
		{"consent_required", "", "canary", "consent_required", rotation.SignIn, entra.ConsentMissing, true, "consent"},
		{"access_denied", "", "AADSTS90094: canary",
			"AADSTS90094", rotation.SignIn, entra.ConsentMissing, true, "administrator"},
		{"unauthorized_client", "", "AADSTS900941: canary",
			"AADSTS900941", rotation.SignIn, entra.ConsentMissing, true, "administrator"},
		{"interaction_required", "", "AADSTS50105: canary",
			"AADSTS50105", rotation.Policy, entra.AppRegistration, false, "assign"},
		{"access_denied", "", "AADSTS53000: canary",
			"AADSTS53000", rotation.Policy, entra.InteractionRequired, false, "compliant"},
		{"access_denied", "", "AADSTS53003: canary",
			"AADSTS53003", rotation.Policy, entra.InteractionRequired, false, "Conditional Access"},
		{"access_denied", "", "AADSTS530084: canary",
			"AADSTS530084", rotation.Policy, entra.PolicyBlocks, false, "does not help"},
		{"access_denied", "", "AADSTS530035: canary",
			"AADSTS530035", rotation.Policy, entra.PolicyBlocks, false, "security defaults"},
		{"access_denied", "", "AADSTS53011: canary",
			"AADSTS53011", rotation.Policy, entra.PolicyBlocks, false, "dismiss the risk"},
		{"interaction_required", "", "AADSTS50131: canary",
			"AADSTS50131", rotation.Policy, entra.PolicyBlocks, false, "exempt"},
		{"invalid_request", "", "AADSTS90072: canary",
			"AADSTS90072", rotation.SignIn, entra.Guest, false, "another tenant"},
		{"invalid_request", "", "AADSTS90002: canary",
			"AADSTS90002", rotation.Configuration, entra.AppRegistration, false, "ENTRA_TENANT_ID"},
		{"access_denied", "", "AADSTS500014: canary",
			"AADSTS500014", rotation.Configuration, entra.AppRegistration, false, "Enterprise applications"},
		{"invalid_request", "", "AADSTS50020: canary",
			"AADSTS50020", rotation.SignIn, entra.Guest, false, "another tenant"},
		{"access_denied", "", "AADSTS50020: canary",
			"AADSTS50020", rotation.SignIn, entra.Guest, false, "another tenant"},
		{"invalid_grant", "", "AADSTS50057: canary",
			"AADSTS50057", rotation.SignIn, entra.UserDisabled, false, "disabled"},
		{"unsupported_response_type", "", "AADSTS700054: canary",
			"AADSTS700054", rotation.Configuration, entra.AppRegistration, false, "platform"},
		{"invalid_resource", "", "AADSTS500011: canary",
			"AADSTS500011", rotation.Configuration, entra.AppRegistration, false, "Azure DevOps"},
		{"invalid_scope", "", "AADSTS4242424: canary",
			"AADSTS4242424", rotation.Configuration, entra.Unknown, false, "app registration"},
		{"server_error", "", "canary", "server_error", rotation.Transient, entra.Unknown, false, "in a while"},
		{"temporarily_unavailable", "", "AADSTS90033: canary", "AADSTS90033", rotation.Transient, "", false, "passing"},
		{"Canary Error!", "canary", "canary AADSTS65001: x",
			"refused", rotation.SignIn, entra.Unknown, false, "sign in again"},
		{"", "", "", "refused", rotation.SignIn, entra.Unknown, false, "sign in again"},
	} {
		e := entra.AuthorizeRefusal(tc.name, tc.sub, tc.description)
		r, ok := errors.AsType[*entra.SignInRefusal](e)
		if !ok {
			t.Fatalf("%s %q: %v is no refusal of a sign-in", tc.name, tc.description, e)
		}
		what := fmt.Sprintf("%s %q: ", tc.name, tc.description)
		check(t, what+"code", e.Code, tc.code)
		check(t, what+"class", e.Class, tc.class)
		check(t, what+"cause", r.Cause, tc.cause)
		check(t, what+"administrator", r.AdminConsent, tc.admin)
		check(t, what+"administrator, by the error", entra.NeedsAdminConsent(e), tc.admin)
		checkHas(t, what+"message", e.Message, tc.says)
		checkLacks(t, what+"the error", e.Error(), "canary")

		activity := ""
		if strings.Contains(tc.description, "Trace ID") {
			activity = "0a6e9b52-58dd-4d1a-a3c9-b5c1c5b8a0b1"
		}
		check(t, what+"activity id", e.ActivityID, activity)
	}
}

func TestACallbackHasExactlyOneAnswer(t *testing.T) {
	for query, want := range map[string]string{
		"state=s&code=c":                    "code",
		"state=s&code=c&session_state=x":    "code",
		"state=s&error=access_denied":       "refused",
		"state=s&admin_consent=True":        "consent",
		"state=s&admin_consent=true&scope=": "consent",
		"state=s&admin_consent=True&error=access_denied&error_description=x": "refused",
		"":                                  "bad",
		"state=s":                           "bad",
		"code=c":                            "bad",
		"state=&code=c":                     "bad",
		"state=s&code=":                     "bad",
		"state=s&admin_consent=False":       "bad",
		"state=s&code=c&error=x":            "bad",
		"state=s&code=c&admin_consent=True": "bad",
		"state=s&state=t&code=c":            "bad",
		"state=s&code=c&code=d":             "bad",
		"state=s&error=x&error=y":           "bad",
		"state=s&code=" + strings.Repeat("c", 10000):     "bad",
		"state=" + strings.Repeat("s", 3000) + "&code=c": "bad",
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		c, err := entra.ReadCallback(v)
		got := map[bool]string{true: "bad"}[err != nil]
		switch {
		case err != nil:
			checkError(t, err, rotation.SignIn, "callback")
		case c.Code.Reveal() == "c" && c.Refused == nil && !c.AdminConsent:
			got = "code"
		case c.Code.Empty() && c.Refused != nil && !c.AdminConsent:
			got = "refused"
		case c.Code.Empty() && c.Refused == nil && c.AdminConsent:
			got = "consent"
		}
		check(t, fmt.Sprintf("%.60s", query), got, want)
		if err == nil {
			check(t, fmt.Sprintf("%.60s: state", query), c.State, "s")
		}
	}
}

func TestWhatAnAdministratorCanMendIsKnown(t *testing.T) {
	for _, err := range []error{
		nil,
		errors.New("x"),
		&rotation.Error{Code: "AADSTS65004"},
		&rotation.Error{Err: &entra.Refusal{Number: 50076, Name: "invalid_grant"}},
	} {
		if entra.NeedsAdminConsent(err) {
			t.Errorf("%v", err)
		}
	}
	for _, err := range []error{
		&rotation.Error{Code: "declined-scopes"},
		&rotation.Error{Err: &entra.Refusal{Number: 65001}},
		&rotation.Error{Err: &entra.Refusal{Name: "invalid_grant", SubError: "consent_required"}}} {
		if !entra.NeedsAdminConsent(err) {
			t.Errorf("%v", err)
		}
	}
}
