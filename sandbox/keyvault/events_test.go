package keyvault_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// recorder keeps the events of a vault with the moment at which they came.
type recorder struct {
	mu     sync.Mutex
	from   time.Time
	events []string // "<age> <type> <version>"
	value  []string // version ids and their names
}

func (r *recorder) emit(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e struct {
		Type string
		Data struct{ Version string }
	}
	if err := json.Unmarshal(b, &e); err != nil {
		e.Type = err.Error()
	}
	r.events = append(r.events, fmt.Sprintf("%s %s %s", time.Since(r.from),
		strings.TrimPrefix(e.Type, "Microsoft.KeyVault.Secret"), e.Data.Version))
}

// received returns the events so far, with the versions' names for their ids.
func (r *recorder) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		out = append(out, strings.NewReplacer(r.value...).Replace(e))
	}
	return out
}

func TestEventsOfExpiry(t *testing.T) {
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{from: time.Now()}
		v := handler(t, keyvault.Config{Emit: r.emit})
		put := func(value string, life time.Duration) {
			t.Helper()
			p := keyvault.Version{Name: "s", Value: value}
			if life > 0 {
				p.Expires = time.Now().Add(life)
			}
			ver, err := v.Put(p)
			if err != nil {
				t.Fatal(err)
			}
			r.mu.Lock()
			r.value = append(r.value, ver.ID, value)
			r.mu.Unlock()
		}
		put("long", 90*day)
		time.Sleep(61 * day)   // NearExpiry comes 30 days before the end
		put("short", 7*day)    // and within minutes for a life shorter than that
		time.Sleep(8 * day)    // the first version is not current any more
		put("endless", 0)      // no exp, no event
		time.Sleep(365 * day)  //
		put("deleted", 40*day) // a deleted secret is silent
		time.Sleep(time.Second)
		if err := v.Delete("s"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * day)
		want := []string{
			"0s NewVersionCreated long",
			"1440h0m0s NearExpiry long",
			"1464h0m0s NewVersionCreated short",
			"1464h3m0s NearExpiry short",
			"1632h0m0s Expired short",
			"1656h0m0s NewVersionCreated endless",
			"10416h0m0s NewVersionCreated deleted",
		}
		if got := strings.Join(r.received(), "\n"); got != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	})
}

func TestAChangedExpiryCountsAnewWhereItIsSwitchedOn(t *testing.T) {
	const day = 24 * time.Hour
	for _, rearm := range []bool{false, true} {
		t.Run(fmt.Sprint(rearm), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{from: time.Now()}
				v := handler(t, keyvault.Config{Emit: r.emit, Events: keyvault.EventFormat{RearmOnUpdate: rearm}})
				_, err := v.Put(keyvault.Version{Name: "s", Value: "x", Expires: time.Now().Add(40 * day)})
				if err != nil {
					t.Fatal(err)
				}
				later := func(ver *keyvault.Version) { ver.Expires = ver.Expires.Add(20 * day) }
				if _, err := v.Change("s", "", later); err != nil {
					t.Fatal(err)
				}
				time.Sleep(31 * day)
				got := r.received()
				last := got[len(got)-1]
				want := "240h0m0s NearExpiry "
				if rearm {
					want = "720h0m0s NearExpiry "
				}
				if !strings.HasPrefix(last, want) {
					t.Errorf("got %q, want %q", last, want)
				}
			})
		})
	}
}

func TestACloseSilencesTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{from: time.Now()}
		v := handler(t, keyvault.Config{Emit: r.emit, Events: keyvault.EventFormat{Delay: time.Minute}})
		if _, err := v.Put(keyvault.Version{Name: "s", Value: "x", Expires: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		v.Close()
		time.Sleep(24 * time.Hour)
		if got := r.received(); len(got) != 0 {
			t.Errorf("events after Close: %v, want none", got)
		}
	})
}

func TestEventEnvelopes(t *testing.T) {
	exp := time.Unix(1900000000, 0)
	for _, tt := range []struct {
		name   string
		format keyvault.EventFormat
		want   string // without id, time and version
	}{
		{"CloudEvents", keyvault.EventFormat{},
			`{"data":{"EXP":1900000000,"Id":"URL","NBF":null,"ObjectName":"s","ObjectType":"Secret",` +
				`"VaultName":"patrol-test","Version":"VERSION"},"id":"ID","source":"SOURCE",` +
				`"specversion":"1.0","subject":"s","time":"TIME",` +
				`"type":"Microsoft.KeyVault.SecretNewVersionCreated"}`},
		{"Event Grid, samples", keyvault.EventFormat{Schema: keyvault.EventGrid, Fields: keyvault.SampleFields,
			Array: true},
			`[{"data":{"EXP":"1900000000","Id":"URL","NBF":null,"ObjectName ":"s","ObjectType":"Secret",` +
				`"VaultName":"patrol-test","Version":" VERSION"},"dataVersion":"1","eventTime":"TIME",` +
				`"eventType":"Microsoft.KeyVault.SecretNewVersionCreated","id":"ID","metadataVersion":"1",` +
				`"subject":"s","topic":"SOURCE"}]`},
		{"CloudEvents, camel case", keyvault.EventFormat{Fields: keyvault.CamelFields, Source: "/here"},
			`{"data":{"exp":1900000000,"id":"URL","nbf":null,"objectName":"s","objectType":"Secret",` +
				`"vaultName":"patrol-test","version":"VERSION"},"id":"ID","source":"/here",` +
				`"specversion":"1.0","subject":"s","time":"TIME",` +
				`"type":"Microsoft.KeyVault.SecretNewVersionCreated"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []byte
				v := handler(t, keyvault.Config{Events: tt.format, Emit: func(b []byte) {
					if got == nil {
						got = b
					}
				}})
				ver, err := v.Put(keyvault.Version{Name: "s", Value: "canary-value", Expires: exp})
				if err != nil {
					t.Fatal(err)
				}
				now := time.Now().UTC().Format(time.RFC3339Nano)
				synctest.Wait()
				var e struct{ ID string }
				one := strings.Trim(string(got), "[]")
				if err := json.Unmarshal([]byte(one), &e); err != nil || len(e.ID) != 36 {
					t.Fatalf("event %s: id %q, %v", got, e.ID, err)
				}
				const source = "/subscriptions/00000000-0000-0000-0000-000000000000" +
					"/resourceGroups/sandbox/providers/Microsoft.KeyVault/vaults/patrol-test"
				want := strings.NewReplacer("URL", ver.URL, "VERSION", ver.ID, "TIME", now, "\"ID\"", `"`+e.ID+`"`,
					"SOURCE", source).Replace(tt.want)
				if string(got) != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		})
	}
}
