package web

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// Many parts of the page show only when something is wrong: a field that they name and
// that is not there would be found by nobody before.
func TestEveryPartOfTheDashboardIsRendered(t *testing.T) {
	t.Parallel()
	tmpl, err := parseDashboard()
	if err != nil {
		t.Fatal(err)
	}
	for name, page := range fullPages() {
		var b bytes.Buffer
		if err := tmpl.Execute(&b, page); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.HasSuffix(name, ", to a reader") && strings.Contains(b.String(), `name="act"`) &&
			strings.Count(b.String(), `name="act"`) != strings.Count(b.String(), `name="act" value="sign-out"`) {
			t.Errorf("%s has a button that acts", name)
		}
		for _, trace := range []string{"%!", "<nil>", "0x"} {
			if strings.Contains(b.String(), trace) {
				t.Errorf("%s shows a value's inside: %q", name, trace)
			}
		}
	}
}

// fullPages show everything that a page can show.
func fullPages() map[string]*dashboardPage {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	soon := now.AddDate(0, 0, 9)
	cause := FailureCause{"transient", "http-502", "it failed"}
	pat := ManagedPAT{Name: "a", DisplayName: "A", AuthorizationID: "id", Scopes: []string{"vso.code"}, ValidTo: &soon,
		RotateAt: &soon, Clamped: true, Global: true, FullScope: true, LastReason: "expiring",
		NextAction: &NextAction{Action: "nothing"}}
	healthy := row{ManagedPAT: pat, OverlapUntil: &soon, Late: &lateSwitchView{"b, c", soon},
		Bar: newTimeline(now.AddDate(0, 0, -1), soon, soon, &soon, now)}
	failing := row{ManagedPAT: pat,
		Failing: &Failing{PAT: "a", Step: "prove", Attempt: 2, At: now, FailureCause: cause}}
	blocked := healthy
	blocked.Problem, blocked.NextAction = &cause, &NextAction{Action: "rotate", Message: "it is due"}
	link := signInAt("https://patrol.example/api/identities/a/signin")
	other := otherRow{UnmanagedPAT{DisplayName: "o", ValidTo: soon, Global: true, DeadFrom: &soon, Expiring: true},
		"warn"}
	narrow := otherRow{UnmanagedPAT{DisplayName: "n", ValidTo: soon, Scopes: []string{"vso.code"}}, ""}
	blind := []BlindSpot{{"vault", "", "", nil, cause}, {"identity", "a", "", nil, cause},
		{"organization", "", "contoso", nil, cause}, {"organization", "a", "contoso", &soon, cause},
		{"bus", "", "", &soon, cause}, {"state", "", "", nil, cause}}
	notice := &notice{Bad: true, Title: "t", Text: []string{"x"}, Detail: []string{"Code: c"}, SignIn: link, Await: "a",
		Instead: []instead{{"Revoke it", action{Act: doRevoke}}}, Links: []pageLink{{"l", "/x"}}}
	overview := &overview{LastSweep: &SweepReport{At: now, Problems: blind}, NextSweep: &soon, Blind: blind,
		Degraded: true, Standing: blind, Unknown: &cause,
		Attention: []row{blocked, failing}, MoreBad: 1, Managed: []row{healthy}, Found: 1, From: 1, To: 1,
		Others: []otherRow{other, narrow}, MoreOthers: 1, Released: []ReleasedPAT{{Name: "r", ValidTo: &soon}},
		MoreGone: 1, Next: "c", Orgs: []string{"contoso"}, Tiles: tiles(Inventory{Managed: 1}, dashboardFilter{})}
	overview.Identities = identityViews([]IdentityStatus{{State: stateSignedIn, Until: &soon, Renamed: "n"},
		{State: stateSignInRequired, Code: "AADSTS50173", Since: &now, SignInURL: link.URL},
		{State: stateSignInRequired, Code: "not-signed-in"}, {State: stateUnknown, Problem: &cause}}, now)
	filtered := *overview
	filtered.Identity, filtered.Confirm = &overview.Identities[1], "11111111-2222-3333-4444-555555555555"
	filtered.Filter = dashboardFilter{Filter: Filter{State: "due", Kind: kindGlobal, Cursor: "c"}, Search: "x"}
	view := &patView{row: blocked, Overlap: "1 day", NewEnd: "2027-01-01T00:00", Extendable: true, SignIn: link,
		TokenEvents: []administration.AuditEntry{{At: now, Action: "Token.PatCreateEvent"}},
		Versions: []VersionInfo{{Latest: true, ValidTo: &soon, RotationID: "r", Reason: "due", RequestedBy: ByTimer},
			{Enabled: true}, {RevokedAt: &now}}}
	view.Switch = &switchView{Open: true, Next: "It waits.", Until: &soon, LateAt: &now, CanRelease: true,
		CanHold: true,
		Consumers: []consumerView{{ConsumerState: ConsumerState{Name: "b", Required: true}, Word: "Late", Tone: "bad"},
			{ConsumerState: ConsumerState{Name: "c", At: &now}, Word: "Switched", Done: true}}}
	over := *view
	over.Switch = &switchView{}
	view.History = []Act{{At: now, Act: actFailed, Message: "m"}, {Act: "extended", ValidTo: &soon}}
	pages := map[string]*dashboardPage{
		"the overview": {Overview: overview, Notice: notice, Actor: "ann"}, "a list": {Overview: &filtered},
		"a PAT": {PAT: view}, "a PAT that is not made": {PAT: &patView{}},
		"a PAT that nobody waits for": {PAT: &over},
		"a confirmation": {Confirm: &confirmView{Text: []string{"x"},
			Facts:  []fact{{"n", "v", true}, {"m", "w", false}},
			Danger: true, Fields: []field{{"a", "b"}}, Back: "a", Until: moment{soon, now}}},
		"a dry run": {Plan: &planView{At: now, Problems: blind, More: 1,
			Changes: []changeView{{Change{Reason: "r", Message: "m", At: &soon}, "Rotate", ""}, {Word: "Make"}}}},
		"an empty dry run": {Plan: &planView{At: now}},
	}
	pages["a plan for users"] = &dashboardPage{Confirm: &confirmView{Button: "b", Users: fullPlan(soon)}}
	for name, p := range maps.Clone(pages) {
		p.Now, p.Nonce, p.Role, p.Form = now, "n", Administrator, "f"
		reader := *p
		reader.Role = Reader
		pages[name+", to a reader"] = &reader
	}
	return pages
}

func fullPlan(ends time.Time) *administration.RevocationPlan {
	user := administration.User{Descriptor: "aad.x", PrincipalName: "u@x", DisplayName: "U"}
	return &administration.RevocationPlan{NotFound: []string{"n"},
		Ambiguous: []administration.Ambiguity{{Name: "a", Candidates: []administration.User{user}}},
		Users: []administration.UserPlan{{User: user}, {User: user,
			PATs: []administration.PAT{{ValidTo: ends, Kept: true}, {Managed: true, Name: "m"}, {Foreign: true}}}}}
}

// What a form asks for is what its confirmation asks for: the hidden fields say all
// of it.
func FuzzAnActionSurvivesItsOwnForm(f *testing.F) {
	f.Add("act=rotate&name=a&revokePrevious=now&reason=%00x&key=k")
	f.Add("act=extend&name=a&validTo=2027-01-31T00%3A00")
	f.Add("act=revoke&authorizationId=00000000-0000-4000-8000-00000000dead&force=true")
	f.Add("act=check&act=rotate")
	f.Add("act=switch-over&name=a&ruling=confirm&consumer=b")
	f.Add("act=switch-over&name=a&ruling=hold&consumer=b")
	f.Add("act=revoke-users&identity=a&organization=+o&users=b%0D%0A%0A+c&keepManaged=true&plan=p")
	f.Add("act=sign-out-everywhere")
	f.Fuzz(func(t *testing.T, body string) {
		form, err := url.ParseQuery(body)
		if err != nil {
			return
		}
		act, p := actionOf(form)
		if p != nil {
			if p.Type != typeBadRequest {
				t.Fatalf("problem of type %s, want %s", p.Type, typeBadRequest)
			}
			return
		}
		again := url.Values{}
		for _, x := range act.Fields() {
			again.Add(x.Name, x.Value)
		}
		reread, p := actionOf(again)
		if p != nil {
			t.Fatalf("%+v gives a form that is refused: %s", act, p.Detail)
		}
		if got, want := fmt.Sprintf("%+v", reread), fmt.Sprintf("%+v", act); got != want {
			t.Fatalf("the form gives\n%s, want\n%s", got, want)
		}
		if reread.describe() != act.describe() {
			t.Fatalf("the form is confirmed as %q, want %q", reread.describe(), act.describe())
		}
		for _, c := range plain(act.Reason) {
			if unicode.Is(unicode.Bidi_Control, c) || unicode.IsControl(c) {
				t.Fatalf("%q is not plain", act.Reason)
			}
		}
	})
}

func TestAnIdentityThatWantsACloserLookIsNoGoodNews(t *testing.T) {
	tmpl, err := parseDashboard()
	if err != nil {
		t.Fatal(err)
	}
	const declared, today = "bot@contoso.com", "build-bot@contoso.com"
	now := time.Now()
	for name, tt := range map[string]struct {
		state             SignInState
		renamed, code     string
		word, tone, shows string
	}{
		"renamed": {state: SignInState{User: declared, Renamed: today}, renamed: today,
			word: "Renamed", tone: "warn", shows: today},
		"refused": {state: SignInState{User: declared, Cause: &rotation.Error{Code: "AADSTS700027"}},
			code: "AADSTS700027", word: "Refused", tone: "bad", shows: "AADSTS700027"},
		"signed in": {state: SignInState{User: declared}, word: "Signed in", tone: "good", shows: declared},
	} {
		t.Run(name, func(t *testing.T) {
			s := identityStatus(tt.state, nil)
			if s.Renamed != tt.renamed {
				t.Errorf("the status has today's name %q, want %q", s.Renamed, tt.renamed)
			}
			if s.Code != tt.code {
				t.Errorf("the status has code %q, want %q", s.Code, tt.code)
			}
			v := identityViews([]IdentityStatus{s}, now)[0]
			if v.Word != tt.word || v.Tone != tt.tone {
				t.Errorf("the badge is %s (%s), want %s (%s)", v.Word, v.Tone, tt.word, tt.tone)
			}
			var page bytes.Buffer
			err := tmpl.Execute(&page, &dashboardPage{Now: now, Nonce: "n", Role: Reader,
				Overview: &overview{Identities: []identityView{v}}})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(page.String(), tt.shows) {
				t.Errorf("the page does not show %s", tt.shows)
			}
			if isTold := strings.Contains(page.String(), "user-renamed"); isTold != (tt.renamed != "") {
				t.Errorf("the page tells of user-renamed: %t", isTold)
			}
		})
	}
}
