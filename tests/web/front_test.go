package web_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// pathOf puts values into a function's route.
func pathOf(f web.Function) string {
	path := "/api/" + f.Route
	for parameter, value := range map[string]string{"{name}": name, "{authorizationId}": unknownID,
		"{identity}": "build-bot", "{id}": "nothing"} {
		path = strings.ReplaceAll(path, parameter, value)
	}
	return path
}

// Who may call each function, what somebody without a key gets, and what a page of another
// site makes of somebody's browser that has the key.
func TestEveryRouteSaysWhoMayAndWhatOthersGet(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		for _, f := range web.Functions() {
			for _, method := range f.Methods {
				ask := method + " /api/" + f.Route
				anonymous := r.ask(method, pathOf(f), "", "X-Functions-Key: ")
				site := r.ask(method, pathOf(f), "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors")
				t.Logf("%-45s may: %-9s without a key: %d, from another site: %d", ask, f.Level, anonymous.code,
					site.code)

				if f.Level != web.LevelAnonymous && anonymous.code != http.StatusUnauthorized {
					t.Errorf("%s: a caller without a key gets %d", ask, anonymous.code)
				}
				if f.Level == web.LevelAdmin {
					if a := r.ask(method, pathOf(f), "", "X-Functions-Key: a-function-key"); a.code != 401 {
						t.Errorf("%s: a caller without the master key gets %d", ask, a.code)
					}
				}
				if !f.FromElsewhere && !f.Page {
					site.want(http.StatusForbidden, "cross-site")
				}
				if f.Level == web.LevelAnonymous {
					for _, canary := range []string{"jenkins-agents", cloud.User, "pats.yaml"} {
						if strings.Contains(string(anonymous.body), canary) {
							t.Errorf("%s tells a caller without a key of %s: %s", ask, canary, anonymous.body)
						}
					}
				}
			}
		}
	})
}

// The table of the front and the folders of the functions say the same.
func TestTheFrontKnowsEveryFunctionsFile(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(functionsDir, "*", "function.json"))
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var f struct {
			Bindings []struct {
				Type, AuthLevel, Route string
				Methods                []string
			}
		}
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		if b := f.Bindings[0]; b.Type == "httpTrigger" {
			methods := strings.ToUpper(strings.Join(b.Methods, ","))
			declared[filepath.Base(filepath.Dir(file))] = methods + " " + b.Route + " " + b.AuthLevel
		}
	}
	for _, f := range web.Functions() {
		got := strings.Join(f.Methods, ",") + " " + f.Route + " " + string(f.Level)
		if got != declared[f.Name] {
			t.Errorf("%s: the front has %q, its function.json %q", f.Name, got, declared[f.Name])
		}
		delete(declared, f.Name)
	}
	for name := range declared {
		t.Errorf("the front does not know the function %s", name)
	}
}

func TestWhatAFunctionDoesNotKnowIsRefusedEverywhere(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		before := r.untouched()
		for _, f := range web.Functions() {
			if f.AnyQuery {
				continue
			}
			for _, method := range f.Methods {
				queries := []string{"?x=1", "?dryrun=true", "?dry-run=true", "?%zz", "?x;y"}
				if len(f.Query) > 0 {
					queries = append(queries, "?"+f.Query[0]+"=true&"+f.Query[0]+"=true",
						"?"+strings.ToUpper(f.Query[0])+"=true")
				}
				for _, q := range queries {
					if a := r.ask(method, pathOf(f)+q, ""); a.code != http.StatusBadRequest {
						t.Errorf("%s %s%s answered %d", method, f.Route, q, a.code)
					}
				}
				body := r.ask(method, pathOf(f), `{"dryRun":true}`)
				if body.code != http.StatusBadRequest {
					t.Errorf("%s %s with an unknown field answered %d", method, f.Route, body.code)
				}
			}
		}
		r.ask("GET", "/api/status?code="+masterKey+"&clientId=default", "", "X-Functions-Key: ").want(200, "")
		r.Settle()
		if now := r.untouched(); now != before {
			t.Errorf("something was done:\n%s\nbefore:\n%s", now, before)
		}
	})
}

func TestAPageOfAnotherSiteOrdersNothing(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		before := r.untouched()
		for _, headers := range [][]string{
			{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {"Sec-Fetch-Site: something-new"},
			{"Origin: https://evil.example"}, {"Origin: null"}, {"Origin: https://patrol.localhost.evil.example"},
			{"Sec-Fetch-Site: cross-site", "Origin: http://patrol.localhost"},
		} {
			for _, f := range web.Functions() {
				if f.Page || f.FromElsewhere {
					continue
				}
				r.ask(f.Methods[0], pathOf(f), "", headers...).want(403, "cross-site")
			}
		}
		for _, headers := range [][]string{
			{"Content-Type: text/plain"}, {"Content-Type: "}, {"Content-Type: application/x-www-form-urlencoded"},
			{"Content-Type: multipart/form-data; boundary=x"}, {"Content-Type: application/json-patch+json"},
			{"Content-Type: text/plain; application/json"}, {"Content-Type: application/json; charset=utf-16"},
			{"Content-Encoding: gzip"},
		} {
			for _, f := range web.Functions() {
				if f.Methods[0] != http.MethodPost || f.Page {
					continue
				}
				r.ask("POST", pathOf(f), "{}", headers...).want(415, "media-type")
			}
		}
		r.Settle()
		if now := r.untouched(); now != before {
			t.Errorf("something was done:\n%s\nbefore:\n%s", now, before)
		}
		for _, headers := range [][]string{
			{"Sec-Fetch-Site: same-origin"}, {"Sec-Fetch-Site: none"}, {"Origin: http://patrol.localhost"},
			{"Content-Type: application/json; charset=UTF-8"}, {"Content-Encoding: identity"},
		} {
			r.ask("POST", "/api/check?dryRun=true", "{}", headers...).want(200, "")
		}
		r.ask("POST", "/api/check?dryRun=true", "", "Content-Type: text/plain").want(200, "")
	})
}

func TestABodyThatCannotBeReadSaysWhy(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		before := r.untouched()
		for body, want := range map[string]string{
			"\x1f\x8b\x08\x00":                 "compressed with gzip",
			"\xef\xbb\xbf{}":                   "byte order mark",
			"\xff\xfe{\x00}\x00":               "UTF-16",
			"\xfe\xff\x00{\x00}":               "UTF-16",
			"{\x00}\x00":                       "zero bytes",
			"{\"reason\":\"\xff\"}":            "not in UTF-8",
			"null":                             "one JSON object",
			"[]":                               "one JSON object",
			`"x"`:                              "one JSON object",
			"{}}":                              "Something follows",
			"{} {}":                            "Something follows",
			"{":                                "one JSON object",
			`{"reason":"a","reason":"b"}`:      "may be given once",
			`{"reason":"a","Reason":"b"}`:      "may be given once",
			`{"reason":5}`:                     "wrong type",
			`{"revoke":true}`:                  "knows no field",
			`{"revokePrevious":{"a":1,"a":2}}`: "may be given once",
			`{"reason":[{"a":1},{"a":1,"b":2,"b":3}]}`: "may be given once",
		} {
			a := r.ask("POST", "/api/pats/jenkins-agents/rotate", body).want(400, "bad-request")
			if !strings.Contains(string(a.body), want) {
				t.Errorf("the body %q: %s, want it to say %q", body, a.body, want)
			}
		}
		for _, body := range []string{`{"validTo":"2027-01-31"}`, `{"validTo":"soon"}`, `{"validTo":5}`} {
			a := r.ask("POST", "/api/pats/jenkins-agents/extend", body).want(400, "bad-request")
			if !strings.Contains(string(a.body), "2027-01-31T00:00:00Z") {
				t.Errorf("the body %s: %s", body, a.body)
			}
		}
		r.Settle()
		if now := r.untouched(); now != before {
			t.Errorf("something was done:\n%s\nbefore:\n%s", now, before)
		}
	})
}

func TestAPathMatchesAsAtTheHost(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		for path, want := range map[string]int{
			"/api/health": 200, "/api/health/": 200, "/api/Health": 200, "/API/HEALTH": 200, "/Api/status/": 200,
			"/api/PATS/jenkins-agents": 200, "/API/pats/Jenkins-Agents/": 200, "/api/pat%73": 200,
			"/api/pats/a%2Fb": 404, "/api/pats/..": 404, "/api/nothing": 404, "/api": 404,
		} {
			req := httptest.NewRequest("GET", "http://patrol.localhost"+path, nil)
			req.Header.Set("X-Functions-Key", masterKey)
			w := httptest.NewRecorder()
			r.Hosts[0].ServeHTTP(w, req)
			if w.Code != want {
				t.Errorf("GET %s answered %d, want %d: %s", path, w.Code, want, w.Body)
			}
		}
		head := httptest.NewRecorder()
		r.Hosts[0].ServeHTTP(head, httptest.NewRequest("HEAD", "http://patrol.localhost/api/health", nil))
		if head.Code != 200 || head.Body.Len() != 0 {
			t.Errorf("HEAD health answered %d with %q", head.Code, head.Body)
		}
	})
}

func TestRequestsWithoutAKeyFillNoLogAndAreBounded(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		before := len(r.Output())
		var codes []int
		for range 200 {
			codes = append(codes, r.ask("GET", "/api/signin/callback?state=x&code=c", "", "X-Functions-Key: ").code)
			r.ask("GET", "/api/health", "", "X-Functions-Key: ").want(200, "")
		}
		if more := r.Output()[before:]; more != "" {
			t.Errorf("the log has grown: %s", more)
		}
		if codes[0] != 400 || codes[199] != 429 {
			t.Errorf("the first answer is %d, want 400; the last one %d, want 429", codes[0], codes[199])
		}
		if n := len(slices.DeleteFunc(codes, func(c int) bool { return c == 429 })); n > 70 {
			t.Errorf("%d of 200 were let through", n)
		}
		time.Sleep(time.Minute)
		r.ask("GET", "/api/signin/callback?state=x&code=c", "", "X-Functions-Key: ").want(400, "")
	})
}

// Without App Service authentication anybody can send its headers.
func TestACallersOwnNameIsBelievedFromThePlatformOnly(t *testing.T) {
	for authenticated, want := range map[bool]string{true: "ada@contoso.com", false: "http"} {
		bubble(t, simulation.Config{Cloud: func(c *cloud.Config) { c.Authentication = authenticated }},
			func(t *testing.T, r *fixture) {
				r.sweep()
				r.ask("POST", "/api/pats/jenkins-agents/rotate", "", "X-Ms-Client-Principal-Name: ada@contoso.com").
					want(202, "")
				r.Settle()
				if got := r.latest(name).Tags["patrol-requested-by"]; got != want {
					t.Errorf("authentication on: %t: requested by %q, want %q", authenticated, got, want)
				}
			})
	}
}

func TestNobodyBearsOneOfPatrolsOwnWords(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		for _, called := range []string{"timer", "Patrol", "sweep", "sign-in", "vault-event", "HTTP", " dashboard",
			"command"} {
			before := len(r.Output())
			r.ask("POST", "/api/check", "", "X-Ms-Client-Principal-Name: "+called).want(202, "")
			if line := r.Output()[before:]; !strings.Contains(line, `"who":"http"`) {
				t.Errorf("somebody who is called %q is in the audit log as %s", called, line)
			}
		}
	})
}

func TestAnAuditLineSaysWhoseWhereAndByWhichRoute(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		before := len(r.Output())
		r.ask("POST", "/api/pats/Jenkins-Agents/rotate", "", "X-Ms-Client-Principal-Name: ada@contoso.com").
			want(202, "")
		var line map[string]any
		for text := range strings.Lines(r.Output()[before:]) {
			if strings.Contains(text, `"msg":"audit"`) && strings.Contains(text, `"act":"rotate"`) {
				if err := json.Unmarshal([]byte(text), &line); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		for field, want := range map[string]string{"who": "ada@contoso.com", "identity": "build-bot",
			"organization": "contoso", "function": "RotatePat", "route": "pats/{name}/rotate", "outcome": "done"} {
			if line[field] != want {
				t.Errorf("%s is %v, want %s: %v", field, line[field], want, line)
			}
		}
	})
}
