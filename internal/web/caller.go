package web

import (
	"crypto/sha256"
	"encoding/base32"
	"net/http"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Caller is who asks for something, and how.
type Caller struct {
	Who     string // App Service authentication's user, or byFunctionKey
	Trigger string // triggerHTTP, triggerDashboard
	// Key is the Idempotency-Key: the same request with the same key acts once.
	Key string
	// Session binds confirmations to the person's session on the page; empty: there is
	// none.
	Session string
}

const (
	// byFunctionKey stands for a caller of whom only the function key is known.
	byFunctionKey = "http"
	// ByTimer stands for the sweep on schedule.
	ByTimer = "timer"
	// byPatrol stands for patrol itself.
	byPatrol = "patrol"

	triggerHTTP      = "http"
	triggerDashboard = "dashboard"

	// maxActor and maxKey bound a user's name and an Idempotency-Key, in bytes.
	maxActor = 256
	maxKey   = 128
)

// CallerOf reads who sends a request. trigger says by which way.
func CallerOf(r *http.Request, trigger string) (Caller, *Problem) {
	by := Caller{Who: actor(r), Trigger: trigger}
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) == 0 {
		return by, nil
	}
	if len(keys) > 1 || !validKey(keys[0]) {
		return by, &Problem{Status: http.StatusBadRequest, Type: typeBadRequest,
			Title:  "The Idempotency-Key cannot be used",
			Detail: "Send one Idempotency-Key of 1 to 128 visible ASCII characters, or none."}
	}
	by.Key = keys[0]
	return by, nil
}

func validKey(key string) bool {
	invisible := func(c rune) bool { return c < '!' || c > '~' }
	return key != "" && len(key) <= maxKey && !strings.ContainsFunc(key, invisible)
}

// actor names who asks: App Service authentication's user, if it is on. Nobody is called
// by one of patrol's own words: what such a person orders would be taken for patrol's.
func actor(r *http.Request) string {
	name := r.Header.Get("X-Ms-Client-Principal-Name")
	if name == "" || len(name) > maxActor || isOwnWord(name) {
		return byFunctionKey
	}
	return name
}

// isOwnWord knows patrol's own words, those for people without a name among them.
func isOwnWord(name string) bool {
	if rotation.IsOwnWord(name) {
		return true
	}
	letters := strings.ToLower(strings.TrimSpace(name))
	return letters == triggerHTTP || letters == triggerDashboard || letters == "command"
}

// operation is the same for every request with the same key of the same caller, in
// every process: so are then the ids of what the request sends.
func (by Caller) operation() string {
	sum := sha256.Sum256([]byte("idempotency\n" + by.Who + "\n" + by.Key))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:26]
}

// posted reads who sends a JSON object, and the object.
func (a *API) posted(w http.ResponseWriter, r *http.Request, body any) (Caller, *Problem) {
	by, p := CallerOf(r, triggerHTTP)
	if p == nil {
		p = readJSON(w, r, body)
	}
	return by, p
}
