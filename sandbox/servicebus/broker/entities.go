// Package broker describes the entities of a Service Bus namespace: their
// properties with the service's limits, their filters, and the configuration
// file that holds them.
//
// It keeps no messages and knows no connection.
package broker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Properties of a queue, topic or subscription. Zero values are the service's
// defaults; a topic uses the time to live and duplicate detection only.
type Properties struct {
	LockDuration                        time.Duration // 1 minute
	DefaultMessageTimeToLive            time.Duration // for ever
	DeadLetteringOnMessageExpiration    bool
	RequiresDuplicateDetection          bool
	DuplicateDetectionHistoryTimeWindow time.Duration // 10 minutes
	MaxDeliveryCount                    int           // 10
	RequiresSession                     bool
	ForwardTo                           string
	ForwardDeadLetteredMessagesTo       string
	Partitioned                         bool
}

// Limits of the service (quotas table; LockDuration's reference).
const (
	maxLock              = 5 * time.Minute
	minWindow            = 20 * time.Second
	maxWindow            = 7 * 24 * time.Hour
	maxDeliveryCount     = 2000
	minTimeToLive        = time.Second
	forever              = time.Duration(math.MaxInt64)
	defaultLock          = time.Minute
	defaultWindow        = 10 * time.Minute
	defaultDeliveryCount = 10
)

// Complete returns the properties with the service's defaults, or an error that names
// those that the service would refuse.
func (p Properties) Complete() (Properties, error) {
	p.LockDuration = cmp.Or(p.LockDuration, defaultLock)
	p.DefaultMessageTimeToLive = cmp.Or(p.DefaultMessageTimeToLive, forever)
	p.DuplicateDetectionHistoryTimeWindow = cmp.Or(p.DuplicateDetectionHistoryTimeWindow, defaultWindow)
	p.MaxDeliveryCount = cmp.Or(p.MaxDeliveryCount, defaultDeliveryCount)
	var errs []error
	if p.LockDuration < 0 || p.LockDuration > maxLock {
		errs = append(errs, fmt.Errorf("LockDuration is %v, want at most %v", p.LockDuration, maxLock))
	}
	if p.DefaultMessageTimeToLive < minTimeToLive {
		errs = append(errs, fmt.Errorf("DefaultMessageTimeToLive is %v, want at least %v",
			p.DefaultMessageTimeToLive, minTimeToLive))
	}
	if w := p.DuplicateDetectionHistoryTimeWindow; w < minWindow || w > maxWindow {
		errs = append(errs, fmt.Errorf("DuplicateDetectionHistoryTimeWindow is %v, want %v to %v", w, minWindow,
			maxWindow))
	}
	if p.MaxDeliveryCount < 1 || p.MaxDeliveryCount > maxDeliveryCount {
		errs = append(errs, fmt.Errorf("MaxDeliveryCount is %d, want 1 to %d", p.MaxDeliveryCount, maxDeliveryCount))
	}
	return p, errors.Join(errs...)
}

// Entities are the queues and topics of a namespace.
type Entities struct {
	Queues []Queue
	Topics []Topic
}

type Queue struct {
	Name       string
	Properties Properties
}

type Topic struct {
	Name          string
	Properties    Properties
	Subscriptions []Subscription
}

type Subscription struct {
	Name       string
	Properties Properties
	Rules      []Rule // none: the true filter
}

type Rule struct {
	Name   string
	Filter Filter
}

// ParseEntities reads the configuration file of Microsoft's Service Bus
// emulator. SQL filters (but for 1=1 and 1=0) and actions are refused.
func ParseEntities(data []byte) (Entities, error) {
	type properties struct {
		LockDuration                        string
		DefaultMessageTimeToLive            string
		DeadLetteringOnMessageExpiration    bool
		RequiresDuplicateDetection          bool
		DuplicateDetectionHistoryTimeWindow string
		MaxDeliveryCount                    int
		RequiresSession                     bool
		ForwardTo                           string
		ForwardDeadLetteredMessagesTo       string
		EnablePartitioning                  bool
	}
	type rule struct {
		Name       string
		Properties struct {
			FilterType        string
			CorrelationFilter *struct {
				ContentType, CorrelationId, Label, MessageId, ReplyTo, ReplyToSessionId, SessionId, To *string
				Properties                                                                             map[string]any
			}
			SqlFilter *struct{ SqlExpression string }
			Action    *struct{ SqlExpression string }
		}
	}
	var file struct {
		UserConfig struct {
			Namespaces []struct {
				Name   string
				Queues []struct {
					Name       string
					Properties properties
				}
				Topics []struct {
					Name          string
					Properties    properties
					Subscriptions []struct {
						Name       string
						Properties properties
						Rules      []rule
					}
				}
			}
			Logging any
		}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	dec.UseNumber()
	if err := dec.Decode(&file); err != nil {
		return Entities{}, fmt.Errorf("reading the entities: %w", err)
	}
	if n := len(file.UserConfig.Namespaces); n != 1 {
		return Entities{}, fmt.Errorf("reading the entities: there are %d namespaces, want one", n)
	}
	var errs []error
	props := func(name string, p properties) Properties {
		duration := func(field, s string) time.Duration {
			if s == "" {
				return 0
			}
			d, err := ParseDuration(s)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", name, field, err))
			}
			return d
		}
		return Properties{
			LockDuration:                     duration("LockDuration", p.LockDuration),
			DefaultMessageTimeToLive:         duration("DefaultMessageTimeToLive", p.DefaultMessageTimeToLive),
			DeadLetteringOnMessageExpiration: p.DeadLetteringOnMessageExpiration,
			RequiresDuplicateDetection:       p.RequiresDuplicateDetection,
			DuplicateDetectionHistoryTimeWindow: duration("DuplicateDetectionHistoryTimeWindow",
				p.DuplicateDetectionHistoryTimeWindow),
			MaxDeliveryCount:              p.MaxDeliveryCount,
			RequiresSession:               p.RequiresSession,
			ForwardTo:                     p.ForwardTo,
			ForwardDeadLetteredMessagesTo: p.ForwardDeadLetteredMessagesTo,
			Partitioned:                   p.EnablePartitioning,
		}
	}
	var out Entities
	ns := file.UserConfig.Namespaces[0]
	for _, q := range ns.Queues {
		out.Queues = append(out.Queues, Queue{q.Name, props(q.Name, q.Properties)})
	}
	for _, t := range ns.Topics {
		topic := Topic{Name: t.Name, Properties: props(t.Name, t.Properties)}
		for _, s := range t.Subscriptions {
			path := t.Name + "/" + s.Name
			sub := Subscription{Name: s.Name, Properties: props(path, s.Properties)}
			for _, r := range s.Rules {
				f, err := func() (Filter, error) {
					p := r.Properties
					if p.Action != nil && p.Action.SqlExpression != "" {
						return Filter{}, errors.New("actions are not supported")
					}
					switch strings.ToLower(p.FilterType) {
					case "correlation":
						c := p.CorrelationFilter
						if c == nil {
							return Filter{}, errors.New("CorrelationFilter is missing")
						}
						f := Filter{
							ContentType: c.ContentType, CorrelationID: c.CorrelationId, Subject: c.Label,
							MessageID: c.MessageId,
							ReplyTo:   c.ReplyTo, ReplyToSessionID: c.ReplyToSessionId, SessionID: c.SessionId,
							To:         c.To,
							Properties: map[string]any{},
						}
						for k, v := range c.Properties {
							v, err := plainValue(v)
							if err != nil {
								return Filter{}, fmt.Errorf("property %s: %w", k, err)
							}
							f.Properties[k] = v
						}
						return f, nil
					case "sql", "":
						if p.SqlFilter == nil {
							return Filter{}, errors.New("SqlFilter is missing")
						}
						return SQLFilter(p.SqlFilter.SqlExpression)
					}
					return Filter{}, fmt.Errorf("FilterType %q is unknown", p.FilterType)
				}()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: rule %s: %w", path, r.Name, err))
				}
				sub.Rules = append(sub.Rules, Rule{r.Name, f})
			}
			topic.Subscriptions = append(topic.Subscriptions, sub)
		}
		out.Topics = append(out.Topics, topic)
	}
	return out, errors.Join(errs...)
}

// plainValue is a JSON value as a property of a message: an integer, a float, text or
// a boolean.
func plainValue(v any) (any, error) {
	switch v := v.(type) {
	case string, bool:
		return v, nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		return v.Float64()
	}
	return nil, errors.New("it is neither text nor a number nor a boolean")
}

var isoDuration = regexp.MustCompile(`^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$`)

// ParseDuration reads an ISO 8601 duration of days and less. What time.Duration
// cannot hold is for ever.
func ParseDuration(s string) (time.Duration, error) {
	parts := isoDuration.FindStringSubmatch(s)
	if parts == nil || strings.HasSuffix(s, "P") || strings.HasSuffix(s, "T") {
		return 0, fmt.Errorf("%q is not an ISO 8601 duration", s)
	}
	total := 0.0
	for i, unit := range []float64{86400, 3600, 60, 1} {
		if parts[i+1] == "" {
			continue
		}
		n, err := strconv.ParseFloat(parts[i+1], 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not an ISO 8601 duration", s)
		}
		total += n * unit
	}
	if total >= forever.Seconds() {
		return forever, nil
	}
	return time.Duration(total * float64(time.Second)).Round(time.Millisecond), nil
}

// SQLFilter is the filter of a SQL expression. Those that let everything or nothing pass
// are told apart, as the service does.
func SQLFilter(text string) (Filter, error) {
	switch strings.ReplaceAll(text, " ", "") {
	case "1=1":
		return Filter{}, nil
	case "1=0":
		return Filter{None: true}, nil
	}
	sql, err := ParseSQL(text)
	return Filter{SQL: sql}, err
}
