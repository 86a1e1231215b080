package broker_test

import (
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// sqlMessage is a message of patrol, and more.
func sqlMessage() *amqp.Message {
	m := amqp.NewMessage([]byte("{}"))
	session := "nuget-feed"
	m.SetProperties(amqp.Properties{Subject: "patrol.pat.rotated", MessageID: "id", GroupID: &session,
		ContentType: "application/cloudevents+json"})
	m.SetApplicationProperties(amqp.Map{{Key: "type", Value: "patrol.pat.rotated"},
		{Key: "subject", Value: "nuget-feed"}, {Key: "organization", Value: "contoso"}, {Key: "n", Value: int32(7)},
		{Key: "half", Value: 0.5}, {Key: "yes", Value: true}, {Key: "Diagnostic-Id", Value: "00-1"},
		{Key: "percent", Value: "100%"}})
	return m
}

func TestSQLFiltersJudgeLikeTheService(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"1=1":                    true,
		"1 = 0":                  false,
		"subject = 'nuget-feed'": true,
		"SUBJECT = 'nuget-feed'": true,
		"subject = 'Nuget-Feed'": false,
		"subject <> 'other'":     true,
		"subject != 'other'":     true,
		"type = 'patrol.pat.rotated' AND subject IN ('nuget-feed', 'jenkins-agents')": true,
		"subject IN ('a', 'b')":               false,
		"subject NOT IN ('a', 'b')":           true,
		"missing NOT IN ('a')":                false,
		"sys.Label LIKE 'patrol.pat.%'":       true,
		"sys.label = 'patrol.pat.rotated'":    true,
		"sys.SessionId = 'nuget-feed'":        true,
		"sys.MessageId = 'id'":                true,
		"sys.CorrelationId IS NULL":           true,
		"sys.To IS NOT NULL":                  false,
		"user.organization = 'contoso'":       true,
		"[organization] = 'contoso'":          true,
		`"Diagnostic-Id" LIKE '00-_'`:         true,
		"type NOT LIKE '%failed%'":            true,
		"percent LIKE '100!%' ESCAPE '!'":     true,
		"subject LIKE 'nuget!_%' ESCAPE '!'":  false,
		"identity IS NULL OR identity <> 'x'": true,
		"identity <> 'build-bot'":             false, // unknown is not true
		"NOT (identity = 'build-bot')":        false, // nor is its contrary
		"identity = NULL":                     false,
		"EXISTS(organization)":                true,
		"NOT EXISTS(user.identity)":           true,
		"n = 7":                               true,
		"n >= 7 AND n <= 7.0 AND half < 1":    true,
		"n > 7":                               false,
		"n = '7'":                             false,
		"yes":                                 true,
		"NOT yes":                             false,
		"yes = TRUE AND yes <> false":         true,
		"yes > false":                         false,
		"subject = 'it''s'":                   false,
		"organization = 'x' OR organization = 'contoso' AND n = 8":   false,
		"(organization = 'x' OR organization = 'contoso') AND n = 7": true,
		"-1 < n": true,
	} {
		f, err := broker.ParseSQL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := (broker.Filter{SQL: f}).Match(sqlMessage()); got != want {
			t.Errorf("%s: passes %v, want %v", text, got, want)
		}
	}
}

func TestWhatIsNoSQLFilterIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", " ", "subject =", "= 'x'", "subject", "subject = 'x", "subject = 'x' AND",
		"subject = 'x')", "(subject = 'x'", "subject LIKE pattern", "subject LIKE 'x' ESCAPE 'ab'", "subject IN ()",
		"subject IN ('a'", "subject IS 7", "sys.Nothing = 'x'", "other.name = 'x'", "user. = 'x'", "n + 1 = 8",
		"newid() = 'x'", "subject = 'x'; DROP", "EXISTS('x')", "NOT", "subject NOT = 'x'", "1.2.3 = 1",
		"subject = '" + strings.Repeat("x", 1024) + "'"} {
		f, err := broker.ParseSQL(text)
		if text == "subject" { // a property that is a boolean is a filter; a text is never true
			if err != nil || (broker.Filter{SQL: f}).Match(sqlMessage()) {
				t.Errorf("%s: passes, or %v", text, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%q is read as a filter", text)
		}
	}
}

func FuzzParseSQL(f *testing.F) {
	f.Add("type = 'x' AND (subject IN ('a', 'b') OR NOT EXISTS(user.n))")
	f.Add("sys.Label LIKE 'a!%' ESCAPE '!' OR n >= -1.5 OR [b c] IS NOT NULL")
	m := sqlMessage()
	f.Fuzz(func(t *testing.T, text string) {
		s, err := broker.ParseSQL(text)
		if err != nil {
			return
		}
		if s.String() != text {
			t.Errorf("comes back as %q, want %q", s, text)
		}
		(broker.Filter{SQL: s}).Match(m)
	})
}
