package entra_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

// wrongClaims are id tokens that must not be believed, by what is wrong with them.
func wrongClaims() map[string]func(map[string]any) {
	set := func(name string, value any) func(map[string]any) {
		return func(claims map[string]any) { claims[name] = value }
	}
	without := func(name string) func(map[string]any) {
		return func(claims map[string]any) { delete(claims, name) }
	}
	const other = "https://login.microsoftonline.com/99999999-2222-3333-4444-555555555555/v2.0"
	return map[string]func(map[string]any){
		"without an audience":          without("aud"),
		"for another app":              set("aud", "99999999-2222-3333-4444-555555555555"),
		"without an issuer":            without("iss"),
		"of another tenant's issuer":   set("iss", other),
		"of another cloud's issuer":    set("iss", "https://login.microsoftonline.us/"+fake.DefaultTenant+"/v2.0"),
		"of an issuer of somebody's":   set("iss", "https://login.example/"+fake.DefaultTenant+"/v2.0"),
		"of an issuer without TLS":     set("iss", "http://login.microsoftonline.com/"+fake.DefaultTenant+"/v2.0"),
		"of version 1":                 set("iss", "https://sts.windows.net/"+fake.DefaultTenant+"/"),
		"without a tenant":             without("tid"),
		"of a tenant that is no id":    set("tid", "contoso.com"),
		"of another tenant":            set("tid", "99999999-2222-3333-4444-555555555555"),
		"without an object id":         without("oid"),
		"with an object id of no form": set("oid", "somebody"),
		"without an end":               without("exp"),
		"that ended ten minutes ago":   set("exp", time.Now().Add(-10*time.Minute).Unix()),
		"with another nonce":           set("nonce", "of-another"),
		"without a nonce":              without("nonce"),
	}
}

func TestAnIDTokenIsBelievedOnlyIfAllOfItFits(t *testing.T) {
	for name, change := range wrongClaims() {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.authority.Switch(func(s *fake.Switches) { s.IDToken = change })
		if err := w.signInAs(c, bot); err == nil {
			t.Errorf("%s: an identity's sign-in is taken", name)
		}
		if got := w.vault.count(); got != 0 {
			t.Errorf("%s: %d versions are stored, want none", name, got)
		}
		if v, err := w.visit(c, bot, entra.AnyAccount); err == nil {
			t.Errorf("%s: a visitor is taken for %+v", name, v)
		}
	}
}

// visit walks through a visitor's sign-in.
func (w *world) visit(c *entra.Client, user, prompt string) (entra.Visitor, error) {
	w.t.Helper()
	page, err := c.VisitorURL(w.t.Context(), signInRequest(), prompt)
	if err != nil {
		return entra.Visitor{}, err
	}
	back := w.walk(page, htmlclient.Person{User: user})
	if back.Refused != nil {
		return entra.Visitor{}, back.Refused
	}
	return c.CompleteVisit(w.t.Context(), entra.CodeGrant{Code: back.Code, RedirectURI: redirect,
		Verifier: rotation.NewSecret(verifier), Nonce: nonce})
}

func TestAVisitorIsKnownByTheRolesOfTheIDToken(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.authority.AddUser(fake.User{UPN: "ann@contoso.com", ObjectID: newID})
	w.mustDo(w.authority.AssignRole("ann@contoso.com", app, "Patrol.Reader"))
	w.mustDo(w.authority.AssignRole("ann@contoso.com", app, "Patrol.Operator"))
	c := w.start()
	v, err := w.visit(c, "ann@contoso.com", entra.AnyAccount)
	w.mustDo(err)
	check(t, "name", v.Name, "ann@contoso.com")
	check(t, "object id", v.ObjectID, newID)
	if want := []string{"Patrol.Reader", "Patrol.Operator"}; !slices.Equal(v.Roles, want) {
		t.Errorf("roles %q, want %q", v.Roles, want)
	}
	v, err = w.visit(c, bot, entra.AnyAccount)
	w.mustDo(err)
	if len(v.Roles) != 0 {
		t.Errorf("somebody without a role has %q", v.Roles)
	}
	if w.vault.count() != 0 {
		t.Error("a visitor's sign-in is stored")
	}
	w.mustDo(w.authority.TakeRole("ann@contoso.com", app, "Patrol.Operator"))
	v, err = w.visit(c, "ann@contoso.com", entra.AnyAccount)
	w.mustDo(err)
	if want := []string{"Patrol.Reader"}; !slices.Equal(v.Roles, want) {
		t.Errorf("roles %q, want %q: one was taken away", v.Roles, want)
	}
}

func TestAVisitorIsAskedForNothingButWhoItIs(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start()
	for _, prompt := range []string{entra.AnyAccount, entra.ChooseAccount, entra.ProveAgain} {
		page, err := c.VisitorURL(t.Context(), signInRequest(), prompt)
		w.mustDo(err)
		u, err := url.Parse(page)
		w.mustDo(err)
		want := url.Values{"client_id": {app}, "response_type": {"code"}, "redirect_uri": {redirect},
			"response_mode": {"query"}, "state": {"st"}, "nonce": {nonce}, "scope": {"openid profile"},
			"code_challenge": {challenge()}, "code_challenge_method": {"S256"}}
		if prompt != "" {
			want.Set("prompt", prompt)
		}
		if got := u.Query(); got.Encode() != want.Encode() {
			t.Errorf("asked with %v, want %v", got, want)
		}
	}
	for _, r := range []entra.SignInRequest{
		{RedirectURI: redirect, State: "st", Challenge: challenge()},
		{RedirectURI: redirect, State: "st", Nonce: nonce},
		{RedirectURI: redirect, Challenge: challenge(), Nonce: nonce},
	} {
		if _, err := c.VisitorURL(t.Context(), r, entra.AnyAccount); err == nil {
			t.Errorf("started with %+v", r)
		}
	}
	_, err := c.CompleteVisit(t.Context(), entra.CodeGrant{Code: rotation.NewSecret("x"), RedirectURI: redirect})
	if err == nil || !strings.Contains(err.Error(), "nonce") {
		t.Errorf("completed without a nonce: %v", err)
	}
}
