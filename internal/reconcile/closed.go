package reconcile

import (
	"maps"
	"strings"
	"sync"
	"time"
)

// closedPATs remembers PATs by their authorization ids with the time at which something
// was done to them: closed (a sweep, whose list shows the latest versions only, need not
// send a command for them again), or ended on a person's word.
type closedPATs struct {
	mu sync.Mutex
	at map[string]time.Time // by authorization id
}

func (c *closedPATs) add(authorizationID string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == nil {
		c.at = map[string]time.Time{}
	}
	c.at[strings.ToLower(authorizationID)] = now
}

func (c *closedPATs) has(authorizationID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.at[strings.ToLower(authorizationID)]
	return ok
}

func (c *closedPATs) prune(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.at, func(_ string, at time.Time) bool { return at.Before(before) })
}
