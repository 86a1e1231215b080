package broker

import (
	"encoding/hex"
	"fmt"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
)

// Filter is a correlation filter: a message passes when all given parts are
// equal, with case; or, where it is given, a SQL filter. The zero value lets everything
// pass, None nothing.
type Filter struct {
	None             bool
	SQL              *SQL
	ContentType      *string
	CorrelationID    *string
	Subject          *string
	MessageID        *string
	ReplyTo          *string
	ReplyToSessionID *string
	SessionID        *string
	To               *string
	Properties       map[string]any // string, bool, int64, float64, or an AMQP value
}

// Match reports whether a message passes.
func (f Filter) Match(m *amqp.Message) bool {
	switch {
	case f.None:
		return false
	case f.SQL != nil:
		return f.SQL.match(m)
	}
	session := ""
	if m.Properties.GroupID != nil {
		session = *m.Properties.GroupID
	}
	for _, c := range []struct {
		want *string
		got  string
	}{
		{f.ContentType, m.Properties.ContentType},
		{f.CorrelationID, idText(m.Properties.CorrelationID)},
		{f.Subject, m.Properties.Subject},
		{f.MessageID, idText(m.Properties.MessageID)},
		{f.ReplyTo, m.Properties.ReplyTo},
		{f.ReplyToSessionID, m.Properties.ReplyToGroupID},
		{f.SessionID, session},
		{f.To, m.Properties.To},
	} {
		if c.want != nil && *c.want != c.got {
			return false
		}
	}
	for k, want := range f.Properties {
		if got := m.ApplicationProperties.Get(k); got == nil || number(got) != number(want) {
			return false
		}
	}
	return true
}

// number makes numbers of all widths comparable; other values stay.
func number(v any) any {
	switch n := v.(type) {
	case int8:
		return float64(n)
	case int16:
		return float64(n)
	case int32:
		return float64(n)
	case int64:
		return float64(n)
	case uint8:
		return float64(n)
	case uint16:
		return float64(n)
	case uint32:
		return float64(n)
	case uint64:
		return float64(n)
	case float32:
		return float64(n)
	case []byte:
		return string(n)
	}
	return v
}

// idText is a message id or correlation id as text.
func idText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return hex.EncodeToString(v)
	}
	return fmt.Sprint(v)
}
