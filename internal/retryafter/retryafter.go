// Package retryafter reads how long a service asks its caller to wait: the header
// Retry-After (RFC 9110, section 10.2.3). It must not know any service, nor wait
// itself.
package retryafter

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// Parse reads a header's value: seconds, of which some services send fractions,
// or a date. What can't be read, and what is over at now, is 0; more than limit
// is not believed.
func Parse(value string, now time.Time, limit time.Duration) time.Duration {
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		if math.IsNaN(seconds) || math.IsInf(seconds, 0) {
			return 0
		}
		seconds = min(max(seconds, 0), limit.Seconds())
		return time.Duration(seconds * float64(time.Second))
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), limit)
}
