package events_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/events"
)

// goldenConfirmation is a row of testdata/confirmations.json, which the clients of all
// languages are held to.
type goldenConfirmation struct {
	Name, Value, PAT, SecretVersion, Consumer, Outcome, Proof string
}

func goldenConfirmations(t *testing.T) []goldenConfirmation {
	t.Helper()
	b, err := os.ReadFile("testdata/confirmations.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []goldenConfirmation
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 {
		t.Fatal("no golden confirmations")
	}
	return rows
}

func (g goldenConfirmation) confirmed() events.Confirmed {
	return events.Confirmed{PAT: g.PAT, SecretVersion: g.SecretVersion, Consumer: g.Consumer, Outcome: g.Outcome}
}

func TestProofsAreTheGoldenOnes(t *testing.T) {
	t.Parallel()
	for _, g := range goldenConfirmations(t) {
		c := g.confirmed().Prove([]byte(g.Value))
		if c.Proof != g.Proof {
			t.Errorf("%s: proof %s, want %s", g.Name, c.Proof, g.Proof)
		}
		if !c.Proves([]byte(g.Value)) {
			t.Errorf("%s: the proof does not prove", g.Name)
		}
		if !c.Proves([]byte("\t" + g.Value + " \n")) {
			t.Errorf("%s: white space at the value's ends counts", g.Name)
		}
	}
}

func TestAProofIsGoodForNothingElse(t *testing.T) {
	t.Parallel()
	value := goldenValue
	right := confirmation().Prove(value)
	for name, c := range map[string]events.Confirmed{
		"another PAT":           change(right, func(c *events.Confirmed) { c.PAT = "nuget-feed" }),
		"another version":       change(right, func(c *events.Confirmed) { c.SecretVersion = replaced.Version }),
		"another consumer":      change(right, func(c *events.Confirmed) { c.Consumer = "nightly-report" }),
		"another outcome":       change(right, func(c *events.Confirmed) { c.Outcome = events.OutcomeFailed }),
		"no proof":              change(right, func(c *events.Confirmed) { c.Proof = "" }),
		"a cut proof":           change(right, func(c *events.Confirmed) { c.Proof = c.Proof[:42] }),
		"a padded proof":        change(right, func(c *events.Confirmed) { c.Proof += "=" }),
		"fields that run over":  change(right, runOver),
		"the replaced PAT's":    confirmation().Prove([]byte("another")),
		"made without any PAT":  confirmation().Prove(nil),
		"made with white space": confirmation().Prove([]byte("  \n")),
	} {
		if c.Proves(value) {
			t.Errorf("%s: it proves", name)
		}
	}
	if confirmation().Prove(nil).Proves([]byte(" ")) {
		t.Error("an empty value proves something")
	}
	noted := right
	noted.Message = "for people"
	if !noted.Proves(value) {
		t.Error("a message takes the proof away, which does not cover it")
	}
}

func runOver(c *events.Confirmed) { c.PAT, c.SecretVersion = "", c.PAT+"\n"+c.SecretVersion }

func change(c events.Confirmed, how func(*events.Confirmed)) events.Confirmed {
	how(&c)
	return c
}

func TestAConfirmationComesBackAsItWasSent(t *testing.T) {
	t.Parallel()
	want := failure().Prove(goldenValue)
	got, err := events.DecodeConfirmation(body(t, events.NewConfirmed(noon, want)))
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Anybody with the sender's right can put anything onto the queue.
func TestWhatIsNoConfirmationIsRefusedAndNotQuoted(t *testing.T) {
	t.Parallel()
	good := golden("patrol.pat.confirmed")
	swap := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatalf("the fixture has no %s", from)
		}
		return strings.Replace(good, from, to, 1)
	}
	for _, tt := range []struct {
		name, body string
		is         error
	}{
		{"nothing", ``, events.ErrMalformed},
		{"no UTF-8", "{\"specversion\":\"\xff\"}", events.ErrMalformed},
		{"too long", strings.Repeat(" ", events.MaxConfirmation) + good, events.ErrMalformed},
		{"another event", golden("patrol.pat.rotated"), events.ErrData},
		{"an unknown type", swap(`"patrol.pat.confirmed"`, `"canary"`), events.ErrData},
		{"the subject of another PAT", swap(`"subject":"jenkins-agents"`, `"subject":"canary"`), events.ErrData},
		{"a PAT with a slash", swap(`"pat":"jenkins-agents"`, `"pat":"../canary"`), events.ErrData},
		{"a version with a line feed", swap(`"secretVersion":"4f9d`, `"secretVersion":"canary\n4f9d`), events.ErrData},
		{"a consumer in capitals", swap(`"consumer":"jenkins`, `"consumer":"CANARY`), events.ErrData},
		{"a long consumer", swap(`"consumer":"jenkins`, `"consumer":"`+strings.Repeat("canary", 8)), events.ErrData},
		{"another outcome", swap(`"outcome":"switched"`, `"outcome":"canary"`), events.ErrData},
		{"a long message", swap(`"outcome"`, `"message":"`+strings.Repeat("canary", 34)+`","outcome"`), events.ErrData},
		{"no proof", swap(`"proof"`, `"canary"`), events.ErrData},
		{"a proof in another form", swap(`"proof":"`, `"proof":"+canary`), events.ErrData},
		{"a number for a text", swap(`"outcome":"switched"`, `"outcome":1`), events.ErrData},
	} {
		_, err := events.DecodeConfirmation([]byte(tt.body))
		if !errors.Is(err, tt.is) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.is)
			continue
		}
		if strings.Contains(strings.ToLower(err.Error()), "canary") {
			t.Errorf("%s: the error quotes it: %v", tt.name, err)
		}
	}
}

func FuzzDecodeConfirmation(f *testing.F) {
	f.Add([]byte(golden("patrol.pat.confirmed")))
	f.Add([]byte(golden("patrol.pat.confirmed.failed")))
	f.Add([]byte(golden("patrol.pat.rotated")))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := events.DecodeConfirmation(b)
		if err != nil {
			if !errors.Is(err, events.ErrMalformed) && !errors.Is(err, events.ErrData) {
				t.Fatalf("an error of neither kind: %v", err)
			}
			return
		}
		out, err := events.Encode(events.NewConfirmed(noon, c))
		if err != nil {
			t.Fatalf("taken, but cannot be sent: %v", err)
		}
		again, err := events.DecodeConfirmation(out)
		if err != nil || again != c {
			t.Fatalf("changed on the way: %+v and %v, want %+v", again, err, c)
		}
		isGolden := c.Proves(goldenValue)
		if isGolden && c.Proof != events.Proof(goldenValue, c) {
			t.Fatal("a forged proof proves")
		}
	})
}
