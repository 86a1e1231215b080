package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// Services that answer with the very secrets that they were sent, a log that keeps
// back nothing, and every function called: still no token gets out. (The search
// itself is made at the end of each test of this package.)
func TestNoTokenGetsOutWhateverTheServicesAnswer(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne,
		settings: func(env map[string]string) { env["LOG_LEVEL"] = "debug" },
		// A token that is asked for anew at each call: the handler keeps none for
		// its last five minutes.
		cloud: func(c *cloud.Config) { c.Entra.AccessTokenLife = 5 * time.Minute },
	})
	const name = "jenkins-agents"
	if err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	s.until("the PAT is provisioned", func() bool { return s.settledAt(name, 1) })

	// Every secret that is known by now, in bodies of all kinds.
	secrets := strings.Join(s.cloud.Tokens(), " ")
	quoted := fmt.Sprintf("%q", secrets)
	for i, f := range []faults.Fault{
		{Service: devops.ServiceName, Operation: devops.CreatePat, Status: 400, Body: `{"$id":"1","message":` + quoted +
			`,"typeKey":` + quoted + `}`},
		{Service: devops.ServiceName, Operation: devops.CreatePat, Status: 200,
			Body: `{"patToken":null,"patTokenError":` + quoted + `}`},
		{Service: devops.ServiceName, Operation: devops.CreatePat, Status: 200, Body: quoted},
		{Service: devops.ServiceName, Operation: devops.CreatePat, Status: 203, Body: "<html>" + secrets + "</html>"},
		{Service: devops.ServiceName, Operation: devops.CreatePat, Status: 302,
			Header: map[string]string{"Location": "https://localhost/?" + s.versions(name)[0].Value}},
		{Service: devops.ServiceName, Operation: devops.ConnectionData, Status: 500, Times: 10, Body: secrets},
		{Service: keyvault.Service, Operation: keyvault.SetSecret, Status: 400, Body: keyvault.ErrorBody(secrets,
			secrets, secrets)},
		{Service: keyvault.Service, Operation: keyvault.GetSecret, Status: 403, Body: keyvault.ErrorBody("Forbidden",
			secrets, "ForbiddenByRbac")},
	} {
		f.Mode = faults.Status
		if err := s.cloud.Injector.Inject(f); err != nil {
			t.Fatal(err)
		}
		v := s.versions(name)
		runs := len(s.finished("Reconcile"))
		s.send(name, fmt.Sprintf("order-%d", i), command(map[string]any{"pat": name, "reason": "requested",
			"from": v[len(v)-1].Tags["CredentialId"], "requestedBy": "fault " + fmt.Sprint(i)}))
		s.until(fmt.Sprintf("fault %d has been met", i), func() bool { return len(s.finished("Reconcile")) > runs })
		s.api(http.MethodGet, "pats", "")
		s.api(http.MethodGet, "pats/"+name, "")
		s.api(http.MethodGet, "status", "")
		s.cloud.Injector.ClearFaults()
	}
	if len(s.failures()) == 0 {
		t.Error("no fault became an event")
	}

	// Last, the refresh token is refused, and the refusal repeats it.
	if err := s.cloud.Injector.Inject(faults.Fault{Service: "entra", Operation: "token refresh_token",
		Mode: faults.Status, Status: 400, Times: -1,
		Header: map[string]string{"Content-Type": "application/json"},
		Body: `{"error":"invalid_grant","error_description":` +
			fmt.Sprintf("%q", "AADSTS700082: The refresh token has expired: "+secrets) +
			`,"error_codes":[700082],"suberror":"token_expired"}`}); err != nil {
		t.Fatal(err)
	}
	_ = s.sweep() // it cannot check everything, and fails
	s.until("a sign-in is asked for", func() bool { return s.count(events.TypeSignInRequired) == 1 })
	for _, path := range []string{"pats", "pats/" + name, "status", "health"} {
		s.api(http.MethodGet, path, "")
	}
	s.api(http.MethodPost, "check?dryRun=true", "")
	a := s.api(http.MethodPost, "pats/"+name+"/rotate", "")
	if a.status != http.StatusConflict || a.json(t)["signInUrl"] == "" {
		t.Errorf("rotate without a sign-in answers %d: %s", a.status, a.body)
	}
	if n := len(s.cloud.Tokens()); n < 10 {
		t.Errorf("the search looks for %d tokens only", n)
	}
}

func TestTheSearchFindsATokenInAnyForm(t *testing.T) {
	t.Parallel()
	const token = "dGhpcyBpcyBhIHRva2VuIG9mIHRoZSB0ZXN0cw=="
	for name, text := range map[string]string{
		"plain":            "level=INFO token=" + token,
		"cut":              "token " + token[:len(token)-3] + "...",
		"its end":          "..." + token[3:],
		"basic":            "Authorization: Basic OmRHaHBjeUJwY3lCaElIUnZhMlZ1SUc5bUlIUm9aU0IwWlhOMGN3PT0=",
		"in a query":       "https://localhost/?code=dGhpcyBpcyBhIHRva2VuIG9mIHRoZSB0ZXN0cw%3D%3D",
		"base64 once more": "ZEdocGN5QnBjeUJoSUhSdmEyVnVJRzltSUhSb1pTQjBaWE4wY3c9PQ==",
	} {
		if len(leaks(text, []string{"another-token-that-is-not-there", token})) == 0 {
			t.Errorf("%s: not found in %q", name, text)
		}
	}
	if found := leaks("nothing [redacted] here", []string{token}); len(found) > 0 {
		t.Errorf("found where nothing is: %v", found)
	}
}
