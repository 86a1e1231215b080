package bus_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestACommandIsReadWithItsDefaults(t *testing.T) {
	t.Parallel()
	got, err := bus.DecodeCommand([]byte(`{"command":"reconcile","pat":"jenkins-agents","reason":"expiring",
		"from":"a1","revokePrevious":"now","requestedBy":"ada","attempt":2,"later":"field"}`))
	want := rotation.Command{PAT: "jenkins-agents", Reason: rotation.Expiring, From: "a1", RevokePrevious: rotation.Now,
		RequestedBy: "ada", Attempt: 2}
	if err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
	got, err = bus.DecodeCommand([]byte(everyField))
	want = rotation.Command{PAT: "jenkins-agents", Reason: rotation.Check, RevokePrevious: rotation.AfterOverlap,
		Since: time.Date(2026, 11, 24, 7, 0, 0, 500_000_000, time.UTC), Prove: true,
		Accepted: rotation.MassChange{PATs: 12, Until: time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)}}
	if err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
	got, err = bus.DecodeCommand([]byte(`{"command":"reconcile","pat":"x"}`))
	want = rotation.Command{PAT: "x", Reason: rotation.Check, RevokePrevious: rotation.AfterOverlap}
	if err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
}

// everyField has those that only some commands carry, as whoever writes them may.
const everyField = `{"command":"reconcile","pat":"jenkins-agents","since":"2026-11-24T08:00:00.5+01:00","prove":true,` +
	`"acceptMassChange":{"pats":12,"until":"2026-11-25T08:00:00Z","later":"field"}}`

// hostile is every kind of body that is no command.
var hostile = []struct{ name, body, want string }{
	{"empty", "", "not a JSON object"},
	{"text", "hello", "not a JSON object"},
	{"not UTF-8", "{\"command\":\"\xff\"}", "not UTF-8"},
	{"array", "[]", "not a JSON object"},
	{"null", "null", `"command" must be "reconcile"`},
	{"another command", `{"command":"destroy","pat":"x"}`, `"command" must be "reconcile"`},
	{"no PAT", `{"command":"reconcile"}`, `"pat" must be`},
	{"a PAT of the wrong type", `{"command":"reconcile","pat":7}`, `"pat" must be a string`},
	{"a name that no vault permits", `{"command":"reconcile","pat":"` + strings.Repeat("x", 128) + `"}`,
		`"pat" must be`},
	{"negative attempt", `{"command":"reconcile","pat":"x","attempt":-1}`, `"attempt" must be`},
	{"huge attempt", `{"command":"reconcile","pat":"x","attempt":1e9}`, `"attempt" must be`},
	{"unknown reason", `{"command":"reconcile","pat":"x","reason":"fun"}`, `"reason" must be`},
	{"unknown revokePrevious", `{"command":"reconcile","pat":"x","revokePrevious":"never"}`,
		`"revokePrevious" must be`},
	{"since of the wrong type", `{"command":"reconcile","pat":"x","since":1795521600}`, `"since" must be a string`},
	{"since that is no time", `{"command":"reconcile","pat":"x","since":"hello"}`,
		`"since" must be a time of RFC 3339`},
	{"since without a zone", `{"command":"reconcile","pat":"x","since":"2026-11-24T08:00:00"}`,
		`"since" must be a time`},
	{"since at no time", `{"command":"reconcile","pat":"x","since":"0001-01-01T00:00:00Z"}`, `"since" must be a time`},
	{"prove of the wrong type", `{"command":"reconcile","pat":"x","prove":"true"}`, `"prove" must be a bool`},
	{"an acceptance of the wrong type", `{"command":"reconcile","pat":"x","acceptMassChange":true}`,
		`"acceptMassChange" must be`},
	{"an acceptance of nothing", `{"command":"reconcile","pat":"x","acceptMassChange":{}}`,
		`"acceptMassChange.pats" must be 1 or more`},
	{"an acceptance of fewer", `{"command":"reconcile","pat":"x","acceptMassChange":{"pats":-1,` +
		`"until":"2026-11-25T08:00:00Z"}}`, `"acceptMassChange.pats" must be 1 or more`},
	{"an acceptance of a part", `{"command":"reconcile","pat":"x","acceptMassChange":{"pats":1.5,` +
		`"until":"2026-11-25T08:00:00Z"}}`, `"acceptMassChange.pats" must be a int`},
	{"an acceptance for ever", `{"command":"reconcile","pat":"x","acceptMassChange":{"pats":1}}`,
		`"acceptMassChange.until" must be a time of RFC 3339`},
	{"an acceptance until hello", `{"command":"reconcile","pat":"x","acceptMassChange":{"pats":1,"until":"hello"}}`,
		`"acceptMassChange.until" must be a time of RFC 3339`},
	{"endless text", `{"command":"reconcile","pat":"x","requestedBy":"` + strings.Repeat("y", 600) + `"}`, "too long"},
	{"two objects", `{"command":"reconcile","pat":"x"}{}`, "something follows"},
	{"too large", `{"command":"reconcile","pat":"x","z":"` + strings.Repeat("y", bus.MaxCommand) + `"}`, "bytes"},
	{"imitated metadata", `{"messageId":"m","deliveryCount":0,"sessionId":"other"}`, `"command" must be "reconcile"`},
}

func TestWhatIsNoCommandIsRefusedWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	for _, tc := range hostile {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := bus.DecodeCommand([]byte(tc.body))
			if !errors.Is(err, bus.ErrNotACommand) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want ErrNotACommand with %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "hello") || len(err.Error()) > 200 {
				t.Errorf("the error quotes the message: %v", err)
			}
		})
	}
}

func TestTheSameOrderHasTheSameMessageID(t *testing.T) {
	t.Parallel()
	c := rotation.Command{PAT: "jenkins-agents", Reason: rotation.Expiring, From: "a1", Attempt: 1,
		Operation: "2026-11-01T08:00Z"}
	if got, want := bus.MessageID(c), "jenkins-agents/expiring/a1/1/2026-11-01T08:00Z"; got != want {
		t.Errorf("message id %q, want %q", got, want)
	}
	next := c
	next.Operation = "2026-11-01T14:00Z"
	if bus.MessageID(c) == bus.MessageID(next) {
		t.Error("the next sweep's order would be dropped as a duplicate")
	}
	accepting := c
	accepting.Accepted = rotation.MassChange{PATs: 12, Until: time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)}
	if got, want := bus.MessageID(accepting), bus.MessageID(c)+"/accepted/12"; got != want {
		t.Errorf("message id of the second sweep of a minute, which carries a person's word: %q, want %q", got, want)
	}
	c.PAT = strings.Repeat("x", 127)
	long := bus.MessageID(c)
	c.Operation = "other"
	if len(long) > 128 || long == bus.MessageID(c) {
		t.Errorf("a long id must be hashed below the broker's 128 characters and stay apart from others: %q", long)
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add([]byte(`{"command":"reconcile","pat":"jenkins-agents","reason":"expiring","from":"a",
		"revokePrevious":"overlap","requestedBy":"x","attempt":0}`))
	f.Add([]byte(everyField))
	for _, h := range hostile {
		f.Add([]byte(h.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := bus.DecodeCommand(body)
		if err != nil {
			if !errors.Is(err, bus.ErrNotACommand) || len(err.Error()) > 300 {
				t.Fatalf("error %q", err)
			}
			return
		}
		if c.PAT == "" || c.Reason == "" || c.RevokePrevious == "" {
			t.Fatalf("accepted a command that lacks a field: %+v", c)
		}
		if id := bus.MessageID(c); len(id) > 128 {
			t.Fatalf("message id %q has %d characters, want 128 at most", id, len(id))
		}
		if a := c.Accepted; (a.PATs < 1) != a.Until.IsZero() {
			t.Fatalf("accepted half an acceptance: %+v", a)
		}
	})
}
