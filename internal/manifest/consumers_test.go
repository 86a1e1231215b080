package manifest_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestConsumersAreRead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rest string
		want *rotation.SwitchOver
	}{
		"none": {"", nil},
		"a name alone": {", consumers: [{name: a}], switchOver: {postponeAtMost: 72h}",
			&rotation.SwitchOver{Consumers: []rotation.Consumer{{Name: "a", Required: true}}, Within: 12 * time.Hour,
				PostponeAtMost: 72 * time.Hour}},
		"all keys": {", consumers: [{name: a, required: true}, {name: b-2, required: false}], " +
			"switchOver: {within: 2h, postponeAtMost: 3d, whenLate: hold}",
			&rotation.SwitchOver{Consumers: []rotation.Consumer{{Name: "a", Required: true}, {Name: "b-2"}},
				Within: 2 * time.Hour, PostponeAtMost: 72 * time.Hour, Hold: true}},
		"nobody is required": {", consumers: [{name: a, required: false}]",
			&rotation.SwitchOver{Consumers: []rotation.Consumer{{Name: "a"}}, Within: 12 * time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := parse(t, entryWith(tt.rest))
			if got := m.PATs[0].SwitchOver; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestConsumersThatHoldNothingAreWarnedOf(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ rest, want string }{
		"required, and never waited for": {", consumers: [{name: a}]",
			`pats.yaml:4:73: the required consumers of PAT "a" hold nothing: the replaced PAT ends after its overlap
			whether they have confirmed or not; say how long they may hold the replaced PAT back, such as
			switchOver: {postponeAtMost: 72h}, or write required: false`},
		"late after the end": {", consumers: [{name: a}], switchOver: {within: 5d, postponeAtMost: 72h}",
			`pats.yaml:4:97: within 5d of PAT "a" is longer than the replaced PAT is kept: nobody is told that a
			consumer is late; shorten within`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, warnings, err := manifest.Parse("pats.yaml", []byte(entryWith(tt.rest)))
			if err != nil {
				t.Fatal(err)
			}
			if got := manifest.Findings(warnings).Error(); got != unfold(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", got, unfold(tt.want))
			}
		})
	}
}

func TestEachRuleOfConsumersHasItsMessage(t *testing.T) {
	t.Parallel()
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprintf("{name: c%d}", i)
	}
	for name, tt := range map[string]struct{ rest, want string }{
		"a word": {", consumers: jenkins",
			`pats.yaml:4:84: consumers of PAT "a" must be a list, not a single value;
			write one consumer per dash below it, such as - name: jenkins-controller`},
		"names alone": {", consumers: [jenkins]",
			`pats.yaml:4:85: consumer 1 of PAT "a" must be a mapping, not a single value;
			write its keys below it, indented: name, required`},
		"none": {", consumers: []",
			`pats.yaml:4:84: consumers of PAT "a" is empty; write one consumer per dash below it,
			such as - name: jenkins-controller, or remove it`},
		"too many": {", consumers: [" + strings.Join(many, ", ") + "]",
			`pats.yaml:4:84: 17 consumers of PAT "a" are more than 16; let one confirm for several`},
		"without a name": {", consumers: [{required: true}]",
			`pats.yaml:4:85: consumer 1 of PAT "a" has no name; name it as it calls itself when it confirms`},
		"a name with capitals": {", consumers: [{name: Jenkins}]",
			`pats.yaml:4:92: consumer 1 of PAT "a" has a name "Jenkins" that no consumer can have;
			use at most 40 lower-case letters, digits and hyphens`},
		"twice": {", consumers: [{name: a}, {name: a}]",
			`pats.yaml:4:103: consumer a of PAT "a" is declared in line 4 already; remove one`},
		"rules without consumers": {", switchOver: {within: 2h}",
			`pats.yaml:4:73: switchOver of PAT "a" has no consumers to wait for; declare consumers, or remove it`},
		"within no time": {", consumers: [{name: a}], switchOver: {within: 0s, postponeAtMost: 1d}",
			`pats.yaml:4:118: within of PAT "a" is no time at all; write how long, such as 12h`},
		"within a number": {", consumers: [{name: a}], switchOver: {within: 2}",
			`pats.yaml:4:118: within "2" of PAT "a" is not a duration;
			write a whole number and one unit: 45s, 90m, 24h or 30d`},
		"whenLate": {", consumers: [{name: a}], switchOver: {whenLate: wait}",
			`pats.yaml:4:120: whenLate "wait" of PAT "a" is neither revoke nor hold;
			write revoke, or hold to let a person decide`},
		"an unknown rule": {", consumers: [{name: a}], switchOver: {postpone: 3d}",
			`pats.yaml:4:110: switchOver of PAT "a" has an unknown key "postpone";
			the keys here are within, postponeAtMost, whenLate`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := manifest.Parse("pats.yaml", []byte(entryWith(tt.rest)))
			if err == nil {
				t.Fatal("accepted")
			}
			if got := err.Error(); got != unfold(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", got, unfold(tt.want))
			}
		})
	}
}
