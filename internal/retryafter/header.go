package retryafter

import (
	"net/http"
	"strconv"
	"time"
)

// FromHeader reads an answer's headers: Retry-After, and before it the two in which
// services of Azure send milliseconds. The first that asks for a wait counts; 0: none
// does.
func FromHeader(h http.Header, now time.Time, limit time.Duration) time.Duration {
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if wait := milliseconds(h.Get(name), limit); wait > 0 {
			return wait
		}
	}
	return Parse(h.Get("Retry-After"), now, limit)
}

func milliseconds(value string, limit time.Duration) time.Duration {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0
	}
	// Compared before it is multiplied, which could overflow.
	if n >= uint64(limit.Milliseconds()) {
		return limit
	}
	return time.Duration(n) * time.Millisecond
}
