package atom

import (
	"encoding/xml"
	"html"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// filters are the rules as the bus takes them.
func (e *entity) filters() []broker.Rule {
	var out []broker.Rule
	for _, r := range e.rules {
		out = append(out, broker.Rule{Name: r.name, Filter: r.filter})
	}
	return out
}

func (r rule) entry() string {
	return document(r.name, "RuleDescription", r.xml+`<Action i:type="EmptyRuleAction"/><CreatedAt>`+stamp(r.created)+
		`</CreatedAt><Name>`+html.EscapeString(r.name)+`</Name>`)
}

func (e *entity) listRules(r *http.Request) (int, string, error) {
	all, err := page(r, e.rules)
	if err != nil {
		return 0, "", err
	}
	var entries []string
	for _, one := range all {
		entries = append(entries, one.entry())
	}
	return http.StatusOK, feed("Rules", entries), nil
}

// rule answers a request for one rule of a subscription.
func (h *Handler) rule(r *http.Request, sub *entity, name string) (int, string, error) {
	at := slices.IndexFunc(sub.rules, func(o rule) bool { return strings.EqualFold(o.name, name) })
	missing := &problem{http.StatusNotFound, "The rule does not exist."}
	next := slices.Clone(sub.rules)
	status, body := http.StatusOK, ""
	switch r.Method {
	case http.MethodGet:
		if at < 0 {
			return http.StatusOK, feed("Publicly Listed Services", nil), nil
		}
		return http.StatusOK, sub.rules[at].entry(), nil
	case http.MethodDelete:
		if at < 0 {
			return 0, "", missing
		}
		next = slices.Delete(next, at, at+1)
	case http.MethodPut:
		var env ruleEnvelope
		if err := read(r, &env); err != nil {
			return 0, "", err
		}
		if env.Rule == nil {
			return 0, "", bad("The content is not a rule.")
		}
		one, err := env.Rule.read()
		if err != nil {
			return 0, "", err
		}
		one.name = name
		switch {
		case r.Header.Get("If-Match") != "*" && at >= 0:
			return 0, "", &problem{http.StatusConflict, "The rule exists already."}
		case r.Header.Get("If-Match") != "*":
			next, status = append(next, one), http.StatusCreated
		case at < 0:
			return 0, "", missing
		default:
			next[at] = one
		}
		body = one.entry()
	default:
		return 0, "", &problem{http.StatusMethodNotAllowed, "The method is not allowed."}
	}
	if err := h.bus.SetRules(sub.parent, sub.name, (&entity{rules: next}).filters()); err != nil {
		return 0, "", err
	}
	sub.rules = next
	return status, body, nil
}

// ruleEnvelope is an entry with a rule, or with a subscription's first one.
type ruleEnvelope struct {
	XMLName xml.Name `xml:"entry"`
	Rule    *ruleXML `xml:"content>RuleDescription"`
	First   *ruleXML `xml:"content>SubscriptionDescription>DefaultRuleDescription"`
}

type ruleXML struct {
	Name   string     `xml:"Name"`
	Filter *filterXML `xml:"Filter"`
	Action *struct {
		Type string `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
	} `xml:"Action"`
}

type filterXML struct {
	XMLName          xml.Name `xml:"Filter"`
	Type             string   `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
	CorrelationID    *string  `xml:"CorrelationId"`
	MessageID        *string  `xml:"MessageId"`
	To               *string  `xml:"To"`
	ReplyTo          *string  `xml:"ReplyTo"`
	Label            *string  `xml:"Label"`
	SessionID        *string  `xml:"SessionId"`
	ReplyToSessionID *string  `xml:"ReplyToSessionId"`
	ContentType      *string  `xml:"ContentType"`
	SQLExpression    string   `xml:"SqlExpression,omitempty"`
	Properties       []pair   `xml:"Properties>KeyValueOfstringanyType"`
}

type pair struct {
	Key   string `xml:"Key"`
	Value struct {
		Type string `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
		Text string `xml:",chardata"`
	} `xml:"Value"`
}

// read gives the rule. The bus has no SQL: of its filters only those that take
// all or nothing are known, and no actions.
func (d *ruleXML) read() (rule, error) {
	if d.Filter == nil {
		return rule{}, bad("The rule has no filter.")
	}
	if d.Action != nil && d.Action.Type != "EmptyRuleAction" {
		return rule{}, bad("Actions are not supported here.")
	}
	d.Filter.XMLName.Space = "" // that of the description around it
	text, err := xml.Marshal(d.Filter)
	if err != nil {
		return rule{}, bad("The filter is not readable.")
	}
	r := rule{name: d.Name, xml: string(text), correlation: d.Filter.Type == "CorrelationFilter",
		created: time.Now().UTC()}
	f := d.Filter
	switch f.Type {
	case "TrueFilter":
	case "FalseFilter":
		r.filter.None = true
	case "SqlFilter":
		switch strings.ReplaceAll(f.SQLExpression, " ", "") {
		case "1=1":
		case "1=0":
			r.filter.None = true
		default:
			return rule{}, bad("SQL filters are not supported here.")
		}
	case "CorrelationFilter":
		r.filter = broker.Filter{
			ContentType: f.ContentType, CorrelationID: f.CorrelationID, Subject: f.Label, MessageID: f.MessageID,
			ReplyTo: f.ReplyTo, ReplyToSessionID: f.ReplyToSessionID, SessionID: f.SessionID, To: f.To,
			Properties: map[string]any{},
		}
		for _, p := range f.Properties {
			v, err := plain(p.Value.Type, p.Value.Text)
			if err != nil {
				return rule{}, err
			}
			r.filter.Properties[p.Key] = v
		}
	default:
		return rule{}, bad("The filter type is not known.")
	}
	return r, nil
}

// plain reads a value of an XML Schema type.
func plain(kind, text string) (any, error) {
	_, name, _ := strings.Cut(kind, ":")
	var v any
	var err error
	switch name {
	case "string":
		return text, nil
	case "int", "long":
		v, err = strconv.ParseInt(text, 10, 64)
	case "double":
		v, err = strconv.ParseFloat(text, 64)
	case "boolean":
		v, err = strconv.ParseBool(text)
	case "dateTime":
		v, err = time.Parse(time.RFC3339Nano, text)
	default:
		return nil, bad("A property of type %s is not supported.", kind)
	}
	if err != nil {
		return nil, bad("A property is not a %s.", name)
	}
	return v, nil
}
