package entra_test

import (
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/sandbox/entra"
)

func TestARegistrationTakesTheRolesThatMicrosoftGraphTakes(t *testing.T) {
	const one, two = "0a0a0a0a-0000-4000-a000-000000000001", "0a0a0a0a-0000-4000-a000-000000000002"
	good := entra.AppRole{ID: one, Value: "App.Reader", Name: "Reader"}
	for name, tc := range map[string]struct {
		roles []entra.AppRole
		want  string // empty: taken
	}{
		"good":           {[]entra.AppRole{good, {ID: two, Value: "App.Writer", Name: "Writer"}}, ""},
		"no GUID":        {[]entra.AppRole{{ID: "reader", Value: "x", Name: "x"}}, "must be a GUID"},
		"an id twice":    {[]entra.AppRole{good, {ID: strings.ToUpper(one), Value: "x", Name: "x"}}, "id is taken"},
		"a value twice":  {[]entra.AppRole{good, {ID: two, Value: "App.Reader", Name: "x"}}, "value is taken"},
		"white space":    {[]entra.AppRole{{ID: one, Value: "App Reader", Name: "x"}}, "without white space"},
		"no value":       {[]entra.AppRole{{ID: one, Name: "x"}}, "without white space"},
		"a dot first":    {[]entra.AppRole{{ID: one, Value: ".Reader", Name: "x"}}, "no dot first"},
		"too long":       {[]entra.AppRole{{ID: one, Value: strings.Repeat("x", 121), Name: "x"}}, "120"},
		"without a name": {[]entra.AppRole{{ID: one, Value: "App.Reader"}}, "display name"},
	} {
		_, err := entra.New(entra.Config{}).Register(entra.App{Roles: tc.roles})
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: refused: %v", name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want a refusal that says %q", name, err, tc.want)
		}
	}
}

func TestARoleIsGivenToSomebodyWhoIsThereAndOnce(t *testing.T) {
	s := entra.New(entra.Config{})
	s.AddUser(entra.User{UPN: "ann@contoso.com"})
	app, err := s.Register(entra.App{Roles: []entra.AppRole{
		{ID: "0a0a0a0a-0000-4000-a000-000000000001", Value: "App.Reader", Name: "Reader"},
		{ID: "0a0a0a0a-0000-4000-a000-000000000002", Value: "App.Old", Name: "Old", Disabled: true}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		do   func() error
		want string
	}{
		{"nobody's", func() error { return s.AssignRole("bob@contoso.com", app, "App.Reader") }, "no user"},
		{"no app's", func() error { return s.AssignRole("ann@contoso.com", "x", "App.Reader") }, "no app"},
		{"no role", func() error { return s.AssignRole("ann@contoso.com", app, "app.reader") }, "no role"},
		{"a disabled one", func() error { return s.AssignRole("ann@contoso.com", app, "App.Old") }, "disabled"},
		{"taken first", func() error { return s.TakeRole("ann@contoso.com", app, "App.Reader") }, "does not have"},
		{"given", func() error { return s.AssignRole("ann@contoso.com", app, "App.Reader") }, ""},
		{"given twice", func() error { return s.AssignRole("ann@contoso.com", app, "App.Reader") }, "already"},
		{"taken", func() error { return s.TakeRole("ann@contoso.com", app, "App.Reader") }, ""},
		{"given again", func() error { return s.AssignRole("ann@contoso.com", app, "App.Reader") }, ""},
	} {
		err := step.do()
		refused := err != nil && step.want != "" && strings.Contains(err.Error(), step.want)
		if !refused && (step.want != "" || err != nil) {
			t.Errorf("%s: %v, want %q", step.what, err, step.want)
		}
	}
	// Somebody of the same name who was made anew has none.
	s.AddUser(entra.User{UPN: "ann@contoso.com"})
	if err := s.TakeRole("ann@contoso.com", app, "App.Reader"); err == nil {
		t.Error("an account that was made anew has the role of the one before")
	}
}
