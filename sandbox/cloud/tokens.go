package cloud

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
)

// tokens remembers every secret that the cloud has given out.
type tokens struct {
	mu   sync.Mutex
	seen map[string]bool
	list []string
}

func (t *tokens) add(values ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	for _, v := range values {
		if v != "" && !t.seen[v] {
			t.seen[v] = true
			t.list = append(t.list, v)
		}
	}
}

// Tokens returns every PAT, refresh token, access token and id token that the
// cloud has given out, and the secrets of its settings: none of them may appear
// in an output of the app.
func (c *Cloud) Tokens() []string {
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	out := append(slices.Clone(c.tokens.list), c.header, c.sasKey)
	for _, one := range c.consumers {
		out = append(out, one.key)
	}
	return out
}

// watch remembers the named fields of a handler's JSON answers.
func (t *tokens) watch(next http.Handler, fields ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost && r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		watched := &recorder{ResponseWriter: w, onWrite: func(body []byte) {
			var answer map[string]any
			if json.Unmarshal(body, &answer) != nil {
				return
			}
			for _, f := range fields {
				if v, ok := answer[f].(string); ok {
					t.add(v)
				}
			}
		}}
		next.ServeHTTP(watched, r)
	})
}

// recorder keeps what has been written so far and passes it to onWrite at each write,
// before the client can have it.
type recorder struct {
	http.ResponseWriter
	body    bytes.Buffer
	onWrite func([]byte)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	r.onWrite(r.body.Bytes())
	return r.ResponseWriter.Write(b)
}
