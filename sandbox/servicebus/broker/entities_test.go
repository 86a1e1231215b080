package broker_test

import (
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

const whole = `{"UserConfig": {"Namespaces": [{"Name": "ns",
  "Queues": [{"Name": "q", "Properties": {
    "LockDuration": "PT1M30S", "DefaultMessageTimeToLive": "P1DT2H", "DeadLetteringOnMessageExpiration": true,
    "RequiresDuplicateDetection": true, "DuplicateDetectionHistoryTimeWindow": "PT20S", "MaxDeliveryCount": 3,
    "RequiresSession": true, "ForwardTo": "f", "ForwardDeadLetteredMessagesTo": "d", "EnablePartitioning": true}}],
  "Topics": [{"Name": "t", "Properties": {}, "Subscriptions": [{"Name": "s", "Properties": {}, "Rules": [
    {"Name": "c", "Properties": {"FilterType": "Correlation", "CorrelationFilter": {
      "Label": "red", "Properties": {"n": 7, "h": 0.5, "b": true, "t": "x"}}}},
    {"Name": "all", "Properties": {"FilterType": "Sql", "SqlFilter": {"SqlExpression": "1 = 1"}}},
    {"Name": "none", "Properties": {"FilterType": "Sql", "SqlFilter": {"SqlExpression": "1=0"}}}]}]}]}],
  "Logging": {"Type": "File"}}}`

func TestTheEmulatorsFileIsRead(t *testing.T) {
	e, err := broker.ParseEntities([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := broker.Properties{
		LockDuration: 90 * time.Second, DefaultMessageTimeToLive: 26 * time.Hour,
		DeadLetteringOnMessageExpiration: true,
		RequiresDuplicateDetection:       true, DuplicateDetectionHistoryTimeWindow: 20 * time.Second,
		MaxDeliveryCount: 3,
		RequiresSession:  true, ForwardTo: "f", ForwardDeadLetteredMessagesTo: "d", Partitioned: true,
	}
	if q := e.Queues[0]; q.Name != "q" || q.Properties != want {
		t.Errorf("queue %+v", q)
	}
	s := e.Topics[0].Subscriptions[0]
	if e.Topics[0].Name != "t" || s.Name != "s" || len(s.Rules) != 3 {
		t.Fatalf("topic %+v", e.Topics[0])
	}
	c := s.Rules[0].Filter
	if *c.Subject != "red" {
		t.Errorf("the filter's subject is %q, want red", *c.Subject)
	}
	properties := map[string]any{"n": int64(7), "h": 0.5, "b": true, "t": "x"}
	if !maps.Equal(c.Properties, properties) {
		t.Errorf("the filter's properties are %v, want %v", c.Properties, properties)
	}
	if s.Rules[1].Filter.None || !s.Rules[2].Filter.None {
		t.Errorf("SQL filters %+v", s.Rules[1:])
	}
}

func TestFilesThatTheEmulatorRefusesAreRefused(t *testing.T) {
	replace := func(from, to string) string { return strings.Replace(whole, from, to, 1) }
	for name, file := range map[string]string{
		"no JSON":               "{",
		"unknown field":         replace(`"Name": "q"`, `"Nam": "q"`),
		"two namespaces":        replace(`"Namespaces": [`, `"Namespaces": [{"Name": "other"},`),
		"wrong duration":        replace("PT1M30S", "90"),
		"no correlation filter": replace(`"FilterType": "Sql"`, `"FilterType": "Correlation"`),
		"no SQL filter":         replace(`"FilterType": "Correlation"`, `"FilterType": "Sql"`),
		"unknown filter":        replace(`"FilterType": "Correlation"`, `"FilterType": "Regex"`),
		"SQL":                   replace("1=0", "color + 'red'"),
		"an action": replace(`"FilterType": "Correlation"`,
			`"FilterType": "Correlation", "Action": {"SqlExpression": "SET a = 1"}`),
		"a list as property": replace(`"n": 7`, `"n": [7]`),
	} {
		if e, err := broker.ParseEntities([]byte(file)); err == nil {
			t.Errorf("%s: read as %+v", name, e)
		}
	}
}

func TestDurationsAreISO8601(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"PT1M": time.Minute, "P1D": 24 * time.Hour, "P1DT2H3M4.5S": 26*time.Hour + 3*time.Minute +
			4500*time.Millisecond,
		"PT0S": 0, "P10675199DT2H48M5.4775807S": math.MaxInt64,
	} {
		if d, err := broker.ParseDuration(text); err != nil || d != want {
			t.Errorf("%s: %v, %v; want %v", text, d, err, want)
		}
	}
	for _, text := range []string{"", "P", "PT", "P1DT", "1M", "PT1.5M", "-PT1M", "P1Y", "P1M", "PT1S ", "PTS"} {
		if d, err := broker.ParseDuration(text); err == nil {
			t.Errorf("%q: read as %v", text, d)
		}
	}
}

func FuzzParseEntities(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"UserConfig": {"Namespaces": [{}]}}`))
	f.Add([]byte(`{"UserConfig": {"Namespaces": [{"Queues": [{"Name": "q", "Properties": {"LockDuration": "P"}}]}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := broker.ParseEntities(b)
		if err != nil {
			return
		}
		for _, q := range e.Queues {
			if q.Properties.LockDuration < 0 || q.Properties.DefaultMessageTimeToLive < 0 {
				t.Errorf("a duration below zero: %+v", q)
			}
		}
	})
}
