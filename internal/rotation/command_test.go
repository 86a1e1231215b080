package rotation_test

import (
	"testing"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestNobodyIsCalledByOneOfPatrolsOwnWords(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"timer": true, "Timer": true, " timer ": true, "ti;mer": true, "time\u200br": true, "vault-event": true,
		"patrol": true, "http": false, "dashboard": false, "": false, "timer@contoso.com": false, "ada": false,
	} {
		if got := rotation.IsOwnWord(name); got != want {
			t.Errorf("%q is one of patrol's own words: %v, want %v", name, got, want)
		}
	}
}

func TestAnOrderIsAPersons(t *testing.T) {
	t.Parallel()
	for by, want := range map[string]bool{"ada@contoso.com": true, "http": true, "dashboard": true, "": true,
		"timer": false, "sweep": false} {
		c := rotation.Command{From: "a1", RequestedBy: by}
		if got := c.IsOrder(); got != want {
			t.Errorf("a command from %q is an order: %v, want %v", by, got, want)
		}
		c.From = ""
		if c.IsOrder() {
			t.Errorf("a command from %q that names no PAT is an order", by)
		}
	}
}
