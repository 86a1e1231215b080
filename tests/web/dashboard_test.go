package web_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

const (
	dashboardAddress = "/api/dashboard"
	// ann is an administrator, as everybody is who says nothing else.
	ann = "Person: ann@contoso.com"
	bob = "Person: bob@contoso.com"
	eve = "Person: eve@contoso.com"
)

// person signs somebody in to the page, once. Whom nobody knows becomes an administrator.
func (r *fixture) person(user string) *visitor {
	r.t.Helper()
	if v := r.people[user]; v != nil {
		return v
	}
	if err := r.Cloud.AddPerson(user, cloud.Administrator); err != nil {
		r.t.Fatal(err)
	}
	return r.enter(user)
}

// visitorOf adds somebody with a role, or with an empty one without, and signs them in.
func (r *fixture) visitorOf(user, role string) *visitor {
	r.t.Helper()
	var roles []string
	if role != "" {
		roles = append(roles, role)
	}
	if err := r.Cloud.AddPerson(user, roles...); err != nil {
		r.t.Fatal(err)
	}
	return r.enter(user)
}

// enter walks through Entra's pages to the page.
func (r *fixture) enter(user string) *visitor {
	r.t.Helper()
	path, cookie := r.away(dashboardAddress, user)
	in := r.ask("GET", path, "", "X-Functions-Key: ", cookie).want(http.StatusSeeOther, "")
	v := &visitor{cookie: in.cookie()}
	r.people[user] = v
	shown := r.ask("GET", in.header.Get("Location"), "", "X-Functions-Key: ", v.cookie)
	if m := formToken.FindSubmatch(shown.body); m != nil {
		v.form = string(m[1])
	}
	return v
}

var formToken = regexp.MustCompile(`name="form" value="([A-Z2-7]{26})"`)

// page is a page of the dashboard, as text for a person and as forms.
type page struct {
	*answer
	text  string
	forms []htmlclient.Form
}

var (
	tags   = regexp.MustCompile(`(?s)<style.*?</style>|<script.*?</script>|<[^>]*>`)
	spaces = regexp.MustCompile(`\s+`)
)

// dashboard sends a form that acts, given as pairs of name and value, or opens the view
// that they name. Whatever comes back is held against what holds for every page.
func (r *fixture) dashboard(fields []string, headers ...string) *page {
	r.t.Helper()
	p := r.sent(fields, headers...)
	if ok := slices.Contains([]int{200, 400, 403, 404, 409, 422}, p.code); !ok {
		r.t.Fatalf("%s answered %d: %s", p.ask, p.code, p.body)
	}
	r.sound(p)
	return p
}

// sent is dashboard for any answer.
func (r *fixture) sent(fields []string, headers ...string) *page {
	r.t.Helper()
	form := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	user := "ada@contoso.com"
	headers = slices.DeleteFunc(slices.Clone(headers), func(h string) bool {
		name, isPerson := strings.CutPrefix(h, "Person: ")
		if isPerson {
			user = name
		}
		return isPerson
	})
	who := r.person(user)
	headers = append([]string{"X-Functions-Key: ", who.cookie, "Sec-Fetch-Site: same-origin"}, headers...)
	p := &page{}
	if form.Has("act") {
		if !form.Has("form") {
			form.Set("form", who.form)
		}
		headers = append([]string{"Content-Type: application/x-www-form-urlencoded"}, headers...)
		p.answer = r.ask("POST", dashboardAddress, form.Encode(), headers...)
	} else {
		p.answer = r.ask("GET", dashboardAddress+"?"+form.Encode(), "", headers...)
	}
	p.text = strings.TrimSpace(spaces.ReplaceAllString(html.UnescapeString(tags.ReplaceAllString(string(p.body), " ")),
		" "))
	p.forms = htmlclient.Forms(string(p.body))
	return p
}

var (
	nonces     = regexp.MustCompile(`<(?:style|script) nonce="([A-Z2-7]{26})">`)
	values     = regexp.MustCompile(`="[^"]*"`)
	attributes = regexp.MustCompile(`(?i)<[^>]*\s(?:style|on[a-z]+|src|srcset|formaction)\s*=`)
)

// sound holds for every page, whatever is on it.
func (r *fixture) sound(p *page) {
	r.t.Helper()
	body := string(p.body)
	found := nonces.FindAllStringSubmatch(body, -1)
	check(r.t, "scripts", strings.Count(body, "<script"), 1)
	check(r.t, "styles", strings.Count(body, "<style"), 1)
	if len(found) != 2 {
		r.t.Errorf("the page's nonces are %q, want two", found)
		return
	}
	nonce := found[0][1]
	check(r.t, "the second nonce", found[1][1], nonce)
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'nonce-" +
			nonce + "'; script-src 'nonce-" + nonce +
			"'; img-src data:; form-action 'self'; connect-src 'self'",
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		"Location": "",
	} {
		if got := p.header.Get(name); got != want {
			r.t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if at := attributes.FindString(values.ReplaceAllString(body, `=""`)); at != "" {
		r.t.Errorf("the policy forbids %s", at)
	}
	for _, secret := range append(r.Cloud.Tokens(), masterKey) {
		if strings.Contains(body, secret) || strings.Contains(fmt.Sprint(p.header), secret) {
			r.t.Errorf("a page shows a key or a token, %q...", secret[:4])
		}
	}
}

func (p *page) says(texts ...string) *page {
	p.t.Helper()
	for _, text := range texts {
		if !strings.Contains(p.text, text) {
			p.t.Errorf("the page does not say %q:\n%s", text, p.text)
		}
	}
	return p
}

// confirmation are the fields of the form that confirms.
func (p *page) confirmation() []string {
	p.t.Helper()
	for _, f := range p.forms {
		if !f.Fields.Has("token") {
			continue
		}
		var fields []string
		for name, values := range f.Fields {
			fields = append(fields, name, values[0])
		}
		return fields
	}
	p.t.Fatalf("the page asks for no confirmation:\n%s", p.text)
	return nil
}

// with is a form with another value.
func with(fields []string, name, value string) []string {
	fields = slices.Clone(fields)
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == name {
			fields[i+1] = value
			return fields
		}
	}
	return append(fields, name, value)
}

// untouched is what an action would change.
func (r *fixture) untouched() string {
	var out []string
	for _, p := range r.Cloud.DevOps.PATs("", "") {
		out = append(out, fmt.Sprintf("%s %s %s", p.AuthorizationID, p.State, p.ValidTo))
	}
	slices.Sort(out)
	return fmt.Sprintf("%d commands\n%s", r.commands(), strings.Join(out, "\n"))
}

// actions are all that the dashboard can do, to jenkins-agents and to a PAT made by hand.
func actions(r *fixture, unmanaged string) map[string]struct {
	form  []string
	means []string
	done  string
	after func() bool
} {
	current := r.latest(name)
	id := current.Tags["CredentialId"]
	return map[string]struct {
		form  []string
		means []string
		done  string
		after func() bool
	}{
		"rotate": {[]string{"act", "rotate", "name", name, "reason", "ticket <b>1</b>"},
			[]string{"Rotate jenkins-agents?", "valid for the overlap of", "ticket <b>1</b>"},
			"The rotation has been ordered",
			func() bool { return r.latest(name).ID != current.ID && r.pat(id).State == devops.Active }},
		"rotate now": {[]string{"act", "rotate", "name", name, "revokePrevious", "now"},
			[]string{"revoke the old PAT at once?", "fail from that moment"}, "The rotation has been ordered",
			func() bool { return r.latest(name).ID != current.ID && r.pat(id).State == devops.Revoked }},
		"extend": {[]string{"act", "extend", "name", name, "validTo", time.Now().AddDate(0, 0, 60).UTC().
			Format("2006-01-02T15:04")},
			[]string{"Extend jenkins-agents?", "keeps its value"}, "The PAT has been extended",
			func() bool {
				return r.pat(id).ValidTo.After(time.Now().AddDate(0, 0, 59)) && r.latest(name).ID == current.ID
			}},
		"revoke an unmanaged one": {[]string{"act", "revoke", "authorizationId", unmanaged, "organization", "contoso",
			"identity", "build-bot"},
			[]string{"Revoke “by hand”?", "does not know who uses it", "vso.code"}, "The PAT has been revoked",
			func() bool { return r.pat(unmanaged).State == devops.Revoked }},
		"revoke the one in use": {[]string{"act", "revoke", "authorizationId", id, "organization", "contoso",
			"identity", "build-bot", "force", "true"},
			[]string{"Revoke the PAT in use of jenkins-agents?", "all of them fail at once"},
			"The PAT has been revoked",
			func() bool { return r.pat(id).State == devops.Revoked && r.latest(name).ID != current.ID }},
		"lengthen the overlap": {[]string{"act", "overlap", "name", name, "until", time.Now().AddDate(0, 0, 5).UTC().
			Format("2006-01-02T15:04")},
			[]string{"Lengthen the overlap of jenkins-agents?", "cannot be shortened"},
			"The overlap has been lengthened",
			func() bool {
				at := r.latest(name).Tags["patrol-revoke-previous-at"]
				return at > time.Now().AddDate(0, 0, 4).UTC().Format(time.RFC3339)
			}},
		"restore": {[]string{"act", "restore", "name", name},
			[]string{"Make the PAT before this one current again?", "the value that it had before"},
			"The earlier PAT is current again",
			func() bool { return r.latest(name).Tags["CredentialId"] == current.Tags["patrol-previous"] }},
		"check": {[]string{"act", "check"}, []string{"Check now?", "patrol checks every PAT"},
			"The check has been done",
			func() bool { return true }},
	}
}

func eachAction(t *testing.T, test func(t *testing.T, r *fixture, act string)) {
	t.Helper()
	for _, act := range []string{"rotate", "rotate now", "extend", "revoke an unmanaged one", "revoke the one in use",
		"lengthen the overlap", "restore", "check"} {
		t.Run(act, func(t *testing.T) {
			run(t, simulation.Config{Manifest: twoPATs}, func(t *testing.T, r *fixture) {
				r.sweep()
				if act == "lengthen the overlap" || act == "restore" {
					r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
					r.Settle()
				}
				test(t, r, act)
			})
		})
	}
}

func TestEveryActIsShownFirstAndDoneWhenConfirmed(t *testing.T) {
	t.Parallel()
	eachAction(t, func(t *testing.T, r *fixture, act string) {
		d := actions(r, r.byHand("by hand", "vso.code", 30, false))[act]
		before := r.untouched()
		asked := r.dashboard(d.form).says(append(d.means, "What will happen", "You can confirm until")...)
		if now := r.untouched(); now != before {
			t.Fatalf("asking did something:\n%s\nbefore:\n%s", now, before)
		}
		confirmed := asked.confirmation()
		r.dashboard(confirmed).says(d.done)
		r.Settle()
		if !d.after() {
			t.Errorf("it was not done:\n%s", r.untouched())
		}
		// The browser's reload sends the form again.
		before = r.untouched()
		r.dashboard(confirmed)
		r.Settle()
		if now := r.untouched(); act != "check" && now != before {
			t.Errorf("a form sent twice acts twice:\n%s\nbefore:\n%s", now, before)
		}
	})
}

func TestAConfirmationFitsOneActOfOnePerson(t *testing.T) {
	t.Parallel()
	eachAction(t, func(t *testing.T, r *fixture, act string) {
		all := actions(r, r.byHand("by hand", "vso.code", 30, false))
		good := r.dashboard(all[act].form, ann).confirmation()
		tokenOf := func(fields []string) string { return fields[slices.Index(fields, "token")+1] }
		forged := map[string][]string{
			"a made-up token":  with(good, "token", strings.Repeat("A", len(tokenOf(good)))),
			"no base64":        with(good, "token", "!"),
			"with another key": with(good, "key", "another"),
			"for another PAT":  with(with(good, "name", "nuget-feed"), "authorizationId", unknownID),
			"with another manner": with(good, "revokePrevious", map[bool]string{true: "overlap",
				false: "now"}[act == "rotate now"]),
			"for another end":     with(good, "validTo", time.Now().AddDate(0, 0, 70).UTC().Format(time.RFC3339)),
			"for another overlap": with(good, "until", time.Now().AddDate(0, 0, 9).UTC().Format(time.RFC3339)),
			"for a mass change":   with(good, "acceptMassChange", "organization/x"),
			"with force, or without": with(good, "force", map[bool]string{true: "false",
				false: "true"}[act == "revoke the one in use"]),
		}
		// Fields that an act has no use for change nothing.
		for field, acts := range map[string][]string{
			"for another PAT": {"rotate", "rotate now", "extend", "revoke an unmanaged one", "revoke the one in use",
				"lengthen the overlap", "restore"},
			"with another manner":    {"rotate", "rotate now"},
			"for another end":        {"extend"},
			"for another overlap":    {"lengthen the overlap"},
			"for a mass change":      {"check"},
			"with force, or without": {"revoke an unmanaged one", "revoke the one in use"},
		} {
			if !slices.Contains(acts, act) {
				delete(forged, field)
			}
		}
		for other, d := range all {
			if other != act {
				forged["of "+other] = with(good, "token", tokenOf(r.dashboard(d.form, ann).confirmation()))
			}
		}
		before := r.untouched()
		refused := func(what string, p *page) {
			t.Helper()
			p.says("The confirmation does not fit", "Nothing was done")
			r.Settle()
			if now := r.untouched(); now != before {
				t.Fatalf("a confirmation %s does it:\n%s\nbefore:\n%s", what, now, before)
			}
		}
		for what, form := range forged {
			refused(what, r.dashboard(form, ann))
		}
		refused("of another person", r.dashboard(with(good, "form", r.person("bob@contoso.com").form), bob))
		refused("of somebody, from another", r.dashboard(with(good, "form", r.person("ada@contoso.com").form)))
		time.Sleep(11 * time.Minute)
		before = r.untouched()
		refused("that is too old", r.dashboard(good, ann))

		// None of it has spoilt a good one.
		r.dashboard(r.dashboard(all[act].form, ann).confirmation(), ann).says(all[act].done)
	})
}

func TestAnotherSiteCannotSendForms(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		good := r.dashboard([]string{"act", "rotate", "name", name}).confirmation()
		before := r.untouched()
		for _, site := range []string{"cross-site", "same-site"} {
			r.dashboard(good, "Sec-Fetch-Site: "+site).says("It came from another site")
		}
		for _, kind := range []string{"text/plain", "application/json", "multipart/form-data; boundary=x", ""} {
			r.dashboard(good, "Content-Type: "+kind).says("The form cannot be used")
		}
		for _, form := range [][]string{
			{"act", "delete"}, {"act", "revoke", "authorizationId", "x"}, {"act", "extend", "name", name,
				"validTo", "soon"},
			{"act", "rotate", "name", name, "revokePrevious", "never"}, {"act", "rotate", "name", name, "reason",
				strings.Repeat("x", 300)},
			{"act", "rotate", "name", name, "key", "a b"},
			{"act", "check", "x", strings.Repeat("x", web.MaxBody)},
		} {
			r.dashboard(form).says("The form cannot be used")
		}
		r.dashboard([]string{"view", "x"}).says("The query cannot be used")
		r.dashboard([]string{"search", strings.Repeat("x", 200)}).says("The query cannot be used")
		r.dashboard([]string{"kind", "x"}).says("The query cannot be used")
		r.dashboard([]string{"cursor", "x"}).says("The query cannot be used")
		r.dashboard([]string{"pat", "nobody"}).says("No such PAT")
		r.dashboard([]string{"act", "rotate", "name", "nobody"}).says("No such PAT")
		r.Settle()
		if now := r.untouched(); now != before {
			t.Errorf("something was done:\n%s\nbefore:\n%s", now, before)
		}
	})
}

func TestNamesFromOutsideStayText(t *testing.T) {
	const evil = `<script>alert(1)</script>"'><img src=x onerror=alert(2)> {{.}} ` + "\u202Egpj.exe\u2066 \x07"
	manifest := strings.Replace(onePAT, "Jenkins agents", `'<b onclick=alert(3)>"Jenkins"</b>'`, 1)
	run(t, simulation.Config{Manifest: manifest}, func(t *testing.T, r *fixture) {
		r.sweep()
		id := r.byHand(evil, "vso.code", 5, true)
		const who = "Person: o'ann&co@contoso.com"
		pages := []*page{
			r.dashboard(nil, who),
			r.dashboard([]string{"search", evil}, who),
			r.dashboard([]string{"pat", name}, who),
			r.dashboard([]string{"pat", evil}, who),
			r.dashboard([]string{"act", "revoke", "authorizationId", id}, who),
			r.dashboard([]string{"act", "rotate", "name", name, "reason", evil}, who),
			r.dashboard([]string{"act", evil}, who),
			r.dashboard([]string{"view", "plan"}, who),
		}
		for i, p := range pages {
			body := string(p.body)
			forbidden := []string{"<script>", "<img", "<b ", "<i>"}
			if i != 1 && i != 5 { // these give back what was typed, in a field
				forbidden = append(forbidden, "\u202E", "\u2066", "\x07")
			}
			for _, markup := range forbidden {
				if strings.Contains(body, markup) {
					t.Errorf("page %d has %q in it", i, markup)
				}
			}
			p.says("Signed in as o'ann&co@contoso.com")
		}
		pages[0].says(`<script>alert(1)</script>"'><img src=x onerror=alert(2)> {{.}} `+"\uFFFDgpj.exe\uFFFD",
			`<b onclick=alert(3)>"Jenkins"</b>`)
		pages[4].says("Revoke “<script>alert(1)")
	})
}

func TestWhatNeedsSomebodyComesFirst(t *testing.T) {
	manifest := strings.Replace(twoPATs, "pats:", "  night-bot:\n    user: night-bot@contoso.com\npats:", 1) +
		"  - {name: zz-nightly, identity: night-bot, organization: contoso, scopes: [vso.code]}\n"
	run(t, simulation.Config{Manifest: manifest}, func(t *testing.T, r *fixture) {
		r.dashboard(nil).says("Not made yet", "none yet")
		time.Sleep(time.Minute)
		if err := r.Sweep(); err == nil {
			t.Error("a sweep without a sign-in does not say so")
		}
		r.Settle()
		p := r.dashboard(nil).says("Needs attention", "Sign-in needed", "Nobody has signed in as night-bot@contoso.com",
			"/api/identities/night-bot/signin", "with 1 problem")
		if at := p.text; strings.Index(at, "zz-nightly") > strings.Index(at, name) {
			t.Errorf("what is blocked does not come first:\n%s", at)
		}
		r.dashboard([]string{"view", "plan"}).says("Nothing has been changed", "zz-nightly", "Ask for a sign-in")
		r.dashboard([]string{"pat", "zz-nightly"}).says("Blocked", "There is no PAT yet",
			"/api/identities/night-bot/signin")
		r.dashboard(r.dashboard([]string{"act", "rotate", "name", "zz-nightly"}).says("Make zz-nightly now?").
			confirmation()).says("A person has to sign in", "After the sign-in, ask again")

		// The page names a service that does not answer, and shows what is known.
		r.inject(faults.Fault{Service: "devops", Mode: faults.Status, Status: 500, Times: -1})
		time.Sleep(2 * time.Minute) // what is known of a moment ago counts
		r.dashboard(nil).says("patrol could not check the organization contoso", "Unknown")
	})
}

func TestAPATsPageShowsItsWholeHistory(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		first := r.latest(name)
		r.dashboard(r.dashboard([]string{"act", "rotate", "name", name}, ann).confirmation(), ann).
			says("The rotation has been ordered")
		r.Settle()
		p := r.dashboard([]string{"pat", name}).says("Up to date", "The replaced PAT is valid until",
			"Made", "Rotated", "ann@contoso.com", "the schedule",
			first.ID, r.latest(name).ID, "In use", "In its overlap")
		if !strings.Contains(string(p.body), `role="img" aria-label="Stored on `) {
			t.Error("the bar has no text")
		}
		r.dashboard(nil, ann).says("Signed in as ann@contoso.com", "Sign out")
		r.dashboard(nil).says("Signed in as ada@contoso.com · Administrator")

		// In use: it is not revoked by mistake.
		id := r.latest(name).Tags["CredentialId"]
		without := r.dashboard([]string{"act", "revoke", "authorizationId", id}).says("Without force it is not revoked")
		r.dashboard(without.confirmation()).says("The PAT is in use", "Rotate it instead", "Revoke it all the same")
		if r.pat(id).State != devops.Active {
			t.Error("it was revoked")
		}
	})
}

var nextPage = regexp.MustCompile(`href="/api/dashboard\?cursor=([A-Za-z0-9_-]+)">Next page`)

func TestALongListIsShownInPages(t *testing.T) {
	manifest := "apiVersion: patrol/v1\nidentities: {build-bot: {user: build-bot@contoso.com}}\npats:\n"
	var want []string
	for i := range 120 {
		want = append(want, fmt.Sprintf("pat-%03d", i))
		manifest += fmt.Sprintf("  - {name: %s, identity: build-bot, organization: contoso, scopes: [vso.code]}\n",
			want[i])
	}
	run(t, simulation.Config{Manifest: manifest}, func(t *testing.T, r *fixture) {
		for i := range 25 {
			r.byHand(fmt.Sprintf("by hand %02d", i), "vso.code", 60, false)
		}
		p := r.dashboard(nil).says("1–50 of 120", "All 25 unmanaged PATs")
		var got []string
		for pages := 1; ; pages++ {
			if len(p.body) > 1<<20 || pages > 10 {
				t.Fatalf("page %d has %d bytes", pages, len(p.body))
			}
			for _, f := range p.forms {
				if f.Fields.Has("name") && slices.Contains(f.Buttons["act"], "rotate") {
					got = append(got, f.Fields.Get("name"))
				}
			}
			next := nextPage.FindStringSubmatch(string(p.body))
			if next == nil {
				break
			}
			p = r.dashboard([]string{"cursor", next[1]})
		}
		if !slices.Equal(got, want) {
			t.Errorf("the pages show %d PATs: %v", len(got), got)
		}
		r.dashboard([]string{"search", "PAT-11"}).says("1–10 of 10", "pat-119")
		r.dashboard([]string{"kind", "unmanaged"}).says("1–25 of 25", "by hand 24")
		r.dashboard([]string{"state", "current"}).says("none", "Nothing fits this filter")
	})
}
