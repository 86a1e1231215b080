package manifest

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// This file reads who must have switched before a replaced PAT ends.

// readSwitchOver reads the consumers of an entry, and how long they are waited for.
func (e *patEntry) readSwitchOver() {
	list, hasConsumers := e.keys["consumers"]
	rules, hasRules := e.keys["switchOver"]
	if !hasConsumers {
		if hasRules {
			e.problem(rules.key, "declare consumers, or remove it", "switchOver of %s has no consumers to wait for",
				e.is)
		}
		return
	}
	before := len(e.findings)
	s := &rotation.SwitchOver{Consumers: e.consumers(list), Within: e.spec.Overlap / 2}
	if hasRules {
		e.readRules(rules, s)
	}
	if len(e.findings) > before || len(s.Consumers) == 0 {
		return
	}
	e.spec.SwitchOver = s
	at := list.key
	if hasRules {
		at = rules.key
	}
	isTooLate := !s.Hold && s.Within > e.spec.Overlap+s.PostponeAtMost
	if isTooLate {
		e.warn(at, "shorten within", "within %s of %s is longer than the replaced PAT is kept: nobody is told that a "+
			"consumer is late", FormatDuration(s.Within), e.is)
	}
	isWaitedFor := s.PostponeAtMost > 0 || s.Hold
	if s.HasRequired() && !isWaitedFor {
		e.warn(at, "say how long they may hold the replaced PAT back, such as switchOver: {postponeAtMost: 72h}, "+
			"or write required: false", "the required consumers of %s hold nothing: the replaced PAT ends after its "+
			"overlap whether they have confirmed or not", e.is)
	}
}

func (e *patEntry) consumers(k field) []rotation.Consumer {
	const do = "write one consumer per dash below it, such as - name: jenkins-controller"
	list := value(k.at)
	if list.Kind != yaml.SequenceNode {
		e.problem(k.at, do, "consumers of %s must be a list, not %s", e.is, kind(list))
		return nil
	}
	if len(list.Content) == 0 {
		e.problem(k.at, do+", or remove it", "consumers of %s is empty", e.is)
		return nil
	}
	if len(list.Content) > rotation.MaxConsumers {
		e.problem(k.at, "let one confirm for several", "%d consumers of %s are more than %d", len(list.Content), e.is,
			rotation.MaxConsumers)
		return nil
	}
	lines := map[string]int{}
	var out []rotation.Consumer
	for i, at := range list.Content {
		is := fmt.Sprintf("consumer %d of %s", i+1, e.is)
		keys := e.mapping(at, is, []string{"name", "required"}, explainTokenKey)
		if keys == nil {
			continue
		}
		c := rotation.Consumer{Required: true}
		if r, ok := keys["required"]; ok {
			c.Required = e.bool(r.at, "required of "+is)
		}
		name, ok := keys["name"]
		if !ok {
			e.problem(at, "name it as it calls itself when it confirms", "%s has no name", is)
			continue
		}
		c.Name, ok = e.text(name.at, "name of "+is, "name it as it calls itself when it confirms")
		first, twice := lines[c.Name]
		switch {
		case !ok:
		case !rotation.IsConsumerName(c.Name):
			e.problem(name.at, "use at most 40 lower-case letters, digits and hyphens",
				"%s has a name %s that no consumer can have", is, quote(c.Name))
		case twice:
			e.problem(name.at, "remove one", "consumer %s of %s is declared in line %d already", c.Name, e.is, first)
		default:
			lines[c.Name] = name.at.Line
			out = append(out, c)
		}
	}
	return out
}

func (e *patEntry) readRules(k field, s *rotation.SwitchOver) {
	keys := e.mapping(k.at, "switchOver of "+e.is, []string{"within", "postponeAtMost", "whenLate"}, nil)
	if w, ok := keys["within"]; ok {
		s.Within = e.longerThanZero(w, "within")
	}
	if p, ok := keys["postponeAtMost"]; ok {
		s.PostponeAtMost = e.span(p, "postponeAtMost")
	}
	w, ok := keys["whenLate"]
	if !ok {
		return
	}
	const do = "write revoke, or hold to let a person decide"
	word, ok := e.text(w.at, "whenLate of "+e.is, do)
	switch {
	case !ok:
	case word == "hold":
		s.Hold = true
	case word != "revoke":
		e.problem(w.at, do, "whenLate %s of %s is neither revoke nor hold", quote(word), e.is)
	}
}

func (e *patEntry) longerThanZero(k field, key string) time.Duration {
	before := len(e.findings)
	d := e.span(k, key)
	if d == 0 && len(e.findings) == before {
		e.problem(k.at, "write how long, such as 12h", "%s of %s is no time at all", key, e.is)
	}
	return d
}

// span reads one duration of an entry; 0 if there is a problem.
func (e *patEntry) span(k field, key string) time.Duration {
	const do = "write a whole number and one unit: 45s, 90m, 24h or 30d"
	text, ok := e.text(k.at, key+" of "+e.is, do)
	if !ok {
		return 0
	}
	d, ok := ParseDuration(text)
	if !ok {
		e.problem(k.at, do, "%s %s of %s is not a duration", key, quote(text), e.is)
		return 0
	}
	if d > maxLifetime {
		e.problem(k.at, "write 365d or less", "%s %s of %s is longer than a PAT can live", key, text, e.is)
		return 0
	}
	return d
}
