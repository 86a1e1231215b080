// Package atom is the administration of a Service Bus namespace over HTTP: the
// ATOM documents by which admin.Client makes, reads, changes, lists and deletes
// queues, topics, subscriptions and rules.
//
// It knows the bus by a small interface and nothing of AMQP.
package atom

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// Bus is what is administered.
type Bus interface {
	Authorize(header, resource string) error
	Create(broker.Entities) error
	CreateSubscription(topic string, s broker.Subscription) error
	Update(entity string, p broker.Properties) error
	SetRules(topic, subscription string, rules []broker.Rule) error
	Delete(entity string) error
	Counts(entity string) servicebus.Counts
	Size(entity string) int64
	Accessed(entity string) time.Time
}

// namespaceInfo describes the namespace, in a schema.
const namespaceInfo = `<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">` +
	`<NamespaceInfo xmlns=%q><CreatedTime>2026-01-01T00:00:00Z</CreatedTime><MessagingSKU>Standard</MessagingSKU>` +
	`<ModifiedTime>2026-01-01T00:00:00Z</ModifiedTime><Name>sandbox</Name>` +
	`<NamespaceType>Messaging</NamespaceType></NamespaceInfo></content></entry>`

// Handler answers the administration's requests. It knows the entities that
// were made through it.
type Handler struct {
	bus Bus

	mu       sync.Mutex
	entities map[string]*entity // by path in lower case
}

// New makes a handler for a bus.
func New(b Bus) *Handler { return &Handler{bus: b, entities: map[string]*entity{}} }

type kind string

const (
	queue        kind = "Queue"
	topic        kind = "Topic"
	subscription kind = "Subscription"
)

type entity struct {
	kind             kind
	path, name       string // name is the last part of the path
	parent           string // the topic of a subscription
	given            map[string]string
	created, updated time.Time
	rules            []rule
}

type rule struct {
	name        string
	xml         string // of the filter
	correlation bool
	filter      broker.Filter
	created     time.Time
}

const (
	schema   = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
	instance = "http://www.w3.org/2001/XMLSchema-instance"
	forever  = "P10675199DT2H48M5.4775807S"
)

type setting struct{ name, value string }

// settings are what a client may set, with the defaults; an empty one is left out of
// an answer.
func (k kind) settings() []setting {
	shared := []setting{
		{"DefaultMessageTimeToLive", forever}, {"EnableBatchedOperations", "true"}, {"Status", "Active"},
		{"UserMetadata", ""}, {"AutoDeleteOnIdle", forever},
	}
	store := []setting{
		{"MaxSizeInMegabytes", "1024"}, {"RequiresDuplicateDetection", "false"},
		{"DuplicateDetectionHistoryTimeWindow", "PT10M"},
		{"AuthorizationRules", ""}, {"SupportOrdering", "true"}, {"EnablePartitioning", "false"},
		{"EnableExpress", "false"},
		{"IsAnonymousAccessible", "false"}, {"MaxMessageSizeInKilobytes", "256"},
	}
	reading := []setting{
		{"LockDuration", "PT1M"}, {"RequiresSession", "false"}, {"DeadLetteringOnMessageExpiration", "false"},
		{"MaxDeliveryCount", "10"},
		{"ForwardTo", ""}, {"ForwardDeadLetteredMessagesTo", ""},
	}
	switch k {
	case queue:
		return slices.Concat(shared, store, reading)
	case topic:
		return slices.Concat(shared, store, []setting{{"FilteringMessagesBeforePublishing", "false"},
			{"EnableSubscriptionPartitioning", "false"}})
	}
	return slices.Concat(shared, reading, []setting{{"DeadLetteringOnFilterEvaluationExceptions", "true"}})
}

// problem is an answer that is not a success.
type problem struct {
	status int
	detail string
}

func (p *problem) Error() string { return p.detail }

func bad(format string, args ...any) error {
	return &problem{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/atom+xml;type=entry;charset=utf-8")
	status, body, err := h.serve(r)
	if err != nil {
		var p *problem
		switch {
		case errors.As(err, &p):
		case errors.Is(err, servicebus.ErrNotFound):
			p = &problem{http.StatusNotFound, err.Error()}
		case errors.Is(err, servicebus.ErrExists):
			p = &problem{http.StatusConflict, err.Error()}
		default:
			p = &problem{http.StatusBadRequest, err.Error()}
		}
		status = p.status
		body = fmt.Sprintf("<Error><Code>%d</Code><Detail>%s</Detail></Error>", status, html.EscapeString(p.detail))
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // a client that has gone needs no answer
}

func (h *Handler) serve(r *http.Request) (int, string, error) {
	if r.URL.Query().Get("api-version") == "" {
		return 0, "", bad("The api-version is missing.")
	}
	if err := h.bus.Authorize(r.Header.Get("Authorization"), "https://"+r.Host+r.URL.Path); err != nil {
		return 0, "", &problem{http.StatusUnauthorized, "claim is empty or token is invalid. " + err.Error()}
	}
	path := strings.Trim(r.URL.Path, "/")
	h.mu.Lock()
	defer h.mu.Unlock()
	if path == "$namespaceinfo" {
		return http.StatusOK, fmt.Sprintf(namespaceInfo, schema), nil
	}
	if strings.HasPrefix(path, "$") {
		return h.resources(r, path)
	}
	parts := strings.Split(path, "/")
	at := slices.IndexFunc(parts, func(s string) bool { return strings.EqualFold(s, "Subscriptions") })
	if at < 0 {
		return h.entity(r, path, "")
	}
	parent, rest := strings.Join(parts[:at], "/"), parts[at+1:]
	switch {
	case len(rest) == 0:
		return h.list(r, subscription, parent)
	case len(rest) == 1:
		return h.entity(r, parent+"/Subscriptions/"+rest[0], parent)
	case len(rest) <= 3 && strings.EqualFold(rest[1], "Rules"):
		sub := h.entities[strings.ToLower(parent+"/Subscriptions/"+rest[0])]
		if sub == nil {
			return 0, "", &problem{http.StatusNotFound, "The subscription does not exist."}
		}
		if len(rest) == 2 {
			return sub.listRules(r)
		}
		return h.rule(r, sub, rest[2])
	}
	return 0, "", bad("The path is not understood.")
}

func (h *Handler) resources(r *http.Request, path string) (int, string, error) {
	switch strings.ToLower(path) {
	case "$resources/queues":
		return h.list(r, queue, "")
	case "$resources/topics":
		return h.list(r, topic, "")
	}
	return 0, "", bad("The path is not understood.")
}

// entity answers a request for a queue, topic or subscription.
func (h *Handler) entity(r *http.Request, path, parent string) (int, string, error) {
	key := strings.ToLower(path)
	e := h.entities[key]
	switch r.Method {
	case http.MethodGet:
		if e == nil {
			return http.StatusOK, feed("Publicly Listed Services", nil), nil
		}
		return http.StatusOK, h.entry(e, false), nil
	case http.MethodDelete:
		if e == nil {
			return 0, "", &problem{http.StatusNotFound, "The entity does not exist."}
		}
		if err := h.bus.Delete(path); err != nil {
			return 0, "", err
		}
		delete(h.entities, key)
		for k, s := range h.entities {
			if strings.EqualFold(s.parent, path) {
				delete(h.entities, k)
			}
		}
		return http.StatusOK, "", nil
	case http.MethodPut:
		if r.Header.Get("If-Match") == "*" {
			return h.update(r, e)
		}
		return h.create(r, path, parent)
	}
	return 0, "", &problem{http.StatusMethodNotAllowed, "The method is not allowed."}
}

func (h *Handler) create(r *http.Request, path, parent string) (int, string, error) {
	if h.entities[strings.ToLower(path)] != nil {
		return 0, "", &problem{http.StatusConflict, "The entity exists already."}
	}
	k, given, first, err := description(r)
	if err != nil {
		return 0, "", err
	}
	if (k == subscription) != (parent != "") {
		return 0, "", bad("A %s cannot be made there.", k)
	}
	name := path[strings.LastIndex(path, "/")+1:]
	now := time.Now().UTC()
	e := &entity{kind: k, path: path, name: name, parent: parent, given: given, created: now, updated: now}
	if k != subscription {
		e.name = path
	}
	props, err := e.properties()
	if err != nil {
		return 0, "", err
	}
	switch k {
	case queue:
		err = h.bus.Create(broker.Entities{Queues: []broker.Queue{{Name: path, Properties: props}}})
	case topic:
		err = h.bus.Create(broker.Entities{Topics: []broker.Topic{{Name: path, Properties: props}}})
	case subscription:
		if first == nil {
			first = &ruleXML{Name: "$Default", Filter: &filterXML{Type: "TrueFilter", SQLExpression: "1=1"}}
		}
		one, bad := first.read()
		if bad != nil {
			return 0, "", bad
		}
		e.rules = []rule{one}
		err = h.bus.CreateSubscription(parent, broker.Subscription{Name: name, Properties: props, Rules: e.filters()})
	}
	if err != nil {
		return 0, "", err
	}
	h.entities[strings.ToLower(path)] = e
	return http.StatusCreated, h.entry(e, true), nil
}

func (h *Handler) update(r *http.Request, e *entity) (int, string, error) {
	if e == nil {
		return 0, "", &problem{http.StatusNotFound, "The entity does not exist."}
	}
	k, given, _, err := description(r)
	if err != nil {
		return 0, "", err
	}
	if k != e.kind {
		return 0, "", bad("The entity is a %s.", e.kind)
	}
	next := *e
	next.given = given
	props, err := next.properties()
	if err != nil {
		return 0, "", err
	}
	if err := h.bus.Update(e.path, props); err != nil {
		return 0, "", err
	}
	e.given, e.updated = given, time.Now().UTC()
	return http.StatusOK, h.entry(e, false), nil
}

// element is one property of a description, as it was sent.
type element struct {
	XMLName xml.Name
	Inner   string `xml:",innerxml"`
}

type envelope struct {
	XMLName xml.Name `xml:"entry"`
	Content struct {
		Description struct {
			XMLName  xml.Name
			Elements []element `xml:",any"`
		} `xml:",any"`
	} `xml:"content"`
}

// read reads a body into the envelopes.
func read(r *http.Request, into ...any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return bad("The body is not readable.")
	}
	for _, one := range into {
		if err := xml.Unmarshal(body, one); err != nil {
			return bad("The body is not an entry.")
		}
	}
	return nil
}

// description reads the entity that a body describes, as the XML of its
// properties, and the first rule of a subscription if it is given.
func description(r *http.Request) (kind, map[string]string, *ruleXML, error) {
	var env envelope
	var rules ruleEnvelope
	if err := read(r, &env, &rules); err != nil {
		return "", nil, nil, err
	}
	d := env.Content.Description
	k := kind(strings.TrimSuffix(d.XMLName.Local, "Description"))
	if k != queue && k != topic && k != subscription {
		return "", nil, nil, bad("The content is not understood.")
	}
	given := map[string]string{}
	for _, el := range d.Elements {
		name := el.XMLName.Local
		if name == "DefaultRuleDescription" && k == subscription {
			continue
		}
		if !slices.ContainsFunc(k.settings(), func(s setting) bool { return s.name == name }) {
			return "", nil, nil, bad("The property %s is not known.", name)
		}
		given[name] = el.Inner
	}
	return k, given, rules.First, nil
}

// properties reads what the bus understands.
func (e *entity) properties() (broker.Properties, error) {
	var errs []error
	value := func(name string) string { return html.UnescapeString(e.given[name]) }
	duration := func(name string) time.Duration {
		if value(name) == "" {
			return 0
		}
		d, err := broker.ParseDuration(value(name))
		if err != nil || d <= 0 {
			errs = append(errs, bad("%s is not a duration.", name))
		}
		return d
	}
	flag := func(name string) bool {
		v := value(name)
		if v != "" && v != "true" && v != "false" {
			errs = append(errs, bad("%s is neither true nor false.", name))
		}
		return v == "true"
	}
	target := func(name string) string {
		u, err := url.Parse(value(name))
		if err != nil {
			errs = append(errs, bad("%s is not an address.", name))
			return ""
		}
		return strings.Trim(u.Path, "/")
	}
	p := broker.Properties{
		LockDuration:                        duration("LockDuration"),
		DefaultMessageTimeToLive:            duration("DefaultMessageTimeToLive"),
		DeadLetteringOnMessageExpiration:    flag("DeadLetteringOnMessageExpiration"),
		RequiresDuplicateDetection:          flag("RequiresDuplicateDetection"),
		DuplicateDetectionHistoryTimeWindow: duration("DuplicateDetectionHistoryTimeWindow"),
		RequiresSession:                     flag("RequiresSession"),
		ForwardTo:                           target("ForwardTo"),
		ForwardDeadLetteredMessagesTo:       target("ForwardDeadLetteredMessagesTo"),
		Partitioned:                         flag("EnablePartitioning"),
	}
	if v := value("MaxDeliveryCount"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 2000 {
			errs = append(errs, bad("MaxDeliveryCount is not from 1 to 2000."))
		}
		p.MaxDeliveryCount = n
	}
	return p, errors.Join(errs...)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// entry describes an entity, with its counters. Only the answer to its creation shows
// that nobody has used it.
func (h *Handler) entry(e *entity, fresh bool) string {
	var b strings.Builder
	put := func(name, inner string) { fmt.Fprintf(&b, "<%s>%s</%s>", name, inner, name) }
	for _, s := range e.kind.settings() {
		if v := cmp.Or(e.given[s.name], s.value); v != "" {
			put(s.name, v)
		}
	}
	n := h.bus.Counts(e.path)
	put("MessageCount", strconv.Itoa(n.Active+n.Deferred+n.Scheduled+n.DeadLetter))
	put("SizeInBytes", strconv.FormatInt(h.bus.Size(e.path), 10))
	put("CountDetails", fmt.Sprintf("<ActiveMessageCount>%d</ActiveMessageCount>"+
		"<DeadLetterMessageCount>%d</DeadLetterMessageCount>"+
		"<ScheduledMessageCount>%d</ScheduledMessageCount>"+
		"<TransferDeadLetterMessageCount>0</TransferDeadLetterMessageCount>"+
		"<TransferMessageCount>0</TransferMessageCount>", n.Active+n.Deferred, n.DeadLetter, n.Scheduled))
	put("CreatedAt", stamp(e.created))
	put("UpdatedAt", stamp(e.updated))
	accessed := h.bus.Accessed(e.path)
	if accessed.IsZero() && !fresh {
		accessed = e.created
	}
	put("AccessedAt", stamp(accessed))
	if e.kind == topic {
		subs, sql, correlation := 0, 0, 0
		for _, s := range h.entities {
			if strings.EqualFold(s.parent, e.path) {
				subs++
				for _, r := range s.rules {
					if r.correlation {
						correlation++
					} else {
						sql++
					}
				}
			}
		}
		put("SubscriptionCount", strconv.Itoa(subs))
		put("SqlFilterCount", strconv.Itoa(sql))
		put("CorrelationFilterCount", strconv.Itoa(correlation))
	}
	return document(e.name, string(e.kind)+"Description", b.String())
}

func document(title, element, inner string) string {
	return fmt.Sprintf(
		`<entry xmlns="http://www.w3.org/2005/Atom"><title type="text">%s</title><content type="application/xml">`+
			`<%s xmlns=%q xmlns:i=%q>%s</%s></content></entry>`, html.EscapeString(title), element, schema, instance,
		inner,
		element)
}

func feed(title string, entries []string) string {
	return `<feed xmlns="http://www.w3.org/2005/Atom"><title type="text">` + html.EscapeString(title) + `</title>` +
		strings.Join(entries, "") + `</feed>`
}

// page cuts a list as the query says.
func page[T any](r *http.Request, all []T) ([]T, error) {
	number := func(name string, or int) (int, error) {
		v := r.URL.Query().Get(name)
		if v == "" {
			return or, nil
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return 0, bad("%s is not a number.", name)
		}
		return n, nil
	}
	skip, err := number("$skip", 0)
	if err != nil {
		return nil, err
	}
	top, err := number("$top", 100)
	if err != nil {
		return nil, err
	}
	all = all[min(skip, len(all)):]
	return all[:min(top, len(all))], nil
}

func (h *Handler) list(r *http.Request, k kind, parent string) (int, string, error) {
	var all []*entity
	for _, e := range h.entities {
		if e.kind == k && strings.EqualFold(e.parent, parent) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(x, y *entity) int { return cmp.Compare(x.path, y.path) })
	all, err := page(r, all)
	if err != nil {
		return 0, "", err
	}
	var entries []string
	for _, e := range all {
		entries = append(entries, h.entry(e, false))
	}
	return http.StatusOK, feed(string(k)+"s", entries), nil
}
