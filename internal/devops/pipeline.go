package devops

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// maxBody is far more than a page of 100 PATs.
	maxBody = 8 << 20
	// maxPause is the longest that a Retry-After is believed; Azure DevOps
	// counts in windows of five minutes.
	maxPause = time.Hour
	// tokenMargin is how long before its end a bearer token is replaced.
	tokenMargin = 5 * time.Minute
)

// newPipeline puts the client's own retries and authorization where azcore has
// its retry policy, which it switches off: that one would repeat a POST, and
// overlooks a Retry-After that comes with a success.
func newPipeline(c *Client, cfg Config) runtime.Pipeline {
	o := cfg.ClientOptions
	r := retries{
		client: c, max: int(o.Retry.MaxRetries), delay: o.Retry.RetryDelay, maxDelay: o.Retry.MaxRetryDelay,
		tryTimeout: cmp.Or(o.Retry.TryTimeout, defaultTryTimeout),
	}
	switch {
	case r.max == 0:
		r.max = 3
	case r.max < 0:
		r.max = 0
	}
	if r.delay == 0 {
		r.delay = 800 * time.Millisecond
	}
	if r.maxDelay <= 0 {
		r.maxDelay = time.Minute
	}
	o.Retry = policy.RetryOptions{MaxRetries: -1}
	o.Telemetry.Disabled = true // patrol says who it is by itself
	o.APIVersion = ""
	o.Transport = newTransport(o.Transport)
	return runtime.NewPipeline("patrol", c.userAgent, runtime.PipelineOptions{
		PerRetry: []policy.Policy{r, authorization{c}},
		AllowedHeaders: []string{"X-VSS-E2EID", "ActivityId", "X-TFS-Session", "Retry-After",
			"X-RateLimit-Delay", "X-RateLimit-Remaining"},
		AllowedQueryParameters: []string{"api-version", "displayFilterOption", "$top", "pageSize", "batchSize",
			"isPublic", "subjectTypes"},
	}, &o)
}

// transport limits answers and sees to it that a redirect is never followed: in
// Azure DevOps it leads to the sign-in page.
type transport struct{ next policy.Transporter }

func newTransport(t policy.Transporter) policy.Transporter {
	if t == nil {
		t = &http.Client{}
	}
	if hc, ok := t.(*http.Client); ok {
		own := *hc
		own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		t = &own
	}
	return transport{t}
}

func (t transport) Do(req *http.Request) (*http.Response, error) {
	asked := req.URL.String()
	resp, err := t.next.Do(req)
	if err != nil || resp == nil {
		return resp, err
	}
	if resp.Request != nil && resp.Request.URL != nil && resp.Request.URL.String() != asked {
		resp.StatusCode = http.StatusFound // someone followed a redirect
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody), resp.Body}
	return resp, nil
}

// call is one operation on its way through the pipeline.
type call struct {
	owner rotation.Owner
	doing string
	item  string          // of the resource: "/" and its escaped name
	basic rotation.Secret // the PAT to show instead of a bearer token
	// scopes of the bearer token; none: the client's.
	scopes []string
	// refuse, if there is one, judges refusals that mean something else here
	// than to the owner of a PAT; nil: nothing else.
	refuse func(a *answer, e serviceError) error

	once    bool // not to be repeated: it may have taken effect
	begun   bool // ends what has been begun, and does not wait for a pause's end
	absence bool // "not found" is an answer: rotation.ErrNotFound
	empty   bool // a success may have no body

	// pending: a request has left, and its answer has not come. Only one
	// goroutine works on a call.
	pending bool
}

// retries repeats what is safe to repeat: GET, DELETE, PUT, which names the
// wanted state, and the POSTs of administration, which only end things. It also
// keeps the pauses that Azure DevOps asks an identity for, with an error or with
// a success.
type retries struct {
	client          *Client
	max             int
	delay, maxDelay time.Duration
	tryTimeout      time.Duration
}

func (r retries) Do(req *policy.Request) (*http.Response, error) {
	var k *call
	req.OperationValue(&k)
	ctx := req.Raw().Context()
	for try := 0; ; try++ {
		if err := r.wait(ctx, k); err != nil {
			return nil, err
		}
		resp, err := r.once(req)
		asked := time.Duration(0)
		if err == nil {
			asked = retryAfter(resp.Header, resp.StatusCode, r.client.now())
			r.client.pause(k.owner.Identity, asked)
		}
		longest := r.maxDelay
		if k.begun {
			longest = maxPause
			if deadline, limited := ctx.Deadline(); limited {
				longest = time.Until(deadline)
			}
		}
		if try == r.max || k.once || asked > longest || ctx.Err() != nil || !repeatable(resp, err) {
			return resp, err
		}
		if err == nil {
			runtime.Drain(resp)
			r.client.log.DebugContext(ctx, "repeating a call", "doing", k.doing, "organization", k.owner.Organization,
				"status", resp.StatusCode, "retryAfter", asked)
		}
		pause := time.Duration(0) // wait does the rest
		if asked == 0 {
			pause = min(r.maxDelay, backoff(r.delay, try))
		} else if k.begun {
			pause = asked
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// once makes one try. azcore has read the whole body when it comes back, so the
// try's own deadline can end.
func (r retries) once(req *policy.Request) (*http.Response, error) {
	if err := req.RewindBody(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(req.Raw().Context(), r.tryTimeout)
	defer cancel()
	return req.Clone(ctx).Next()
}

// wait sits out the identity's pause. One that is too long, or longer than the
// caller has time, is an error at once.
func (r retries) wait(ctx context.Context, k *call) error {
	for {
		left := r.client.paused(k.owner.Identity)
		if left <= 0 || k.begun {
			return nil
		}
		deadline, limited := ctx.Deadline()
		if left > r.maxDelay || limited && time.Until(deadline) < left {
			e := k.fail(rotation.Throttled, "paused", "Azure DevOps has asked this identity to slow down", nil)
			e.After = left
			return e
		}
		if err := sleep(ctx, left); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backoff doubles from try to try, between half and the whole of it.
func backoff(delay time.Duration, try int) time.Duration {
	if delay <= 0 {
		return 0
	}
	d := delay << min(try, 10)
	return d/2 + rand.N(d/2+1)
}

func repeatable(resp *http.Response, err error) bool {
	if err != nil {
		// A credential's errors have been retried by the credential; what
		// has a class is decided.
		_, decided := errors.AsType[*rotation.Error](err)
		_, refused := errors.AsType[credentialError](err)
		return !decided && !refused
	}
	if resp.Header.Get("X-VSS-HostOfflineError") != "" {
		return false
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter reads how long Azure DevOps wants the caller to wait: in seconds, or
// until a date; a refused call without it has the budget's reset instead.
func retryAfter(h http.Header, status int, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	d := time.Duration(0)
	if seconds, err := strconv.ParseFloat(v, 64); err == nil && seconds > 0 {
		d = time.Duration(min(seconds, maxPause.Seconds()) * float64(time.Second))
	} else if date, err := http.ParseTime(v); err == nil {
		d = date.Sub(now)
	} else if reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil &&
		status == http.StatusTooManyRequests {
		d = time.Unix(reset, 0).Sub(now)
	}
	return min(max(d, 0), maxPause)
}

func (c *Client) pause(identity string, d time.Duration) {
	if d <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := c.now().Add(d); until.After(c.pauses[identity]) {
		c.pauses[identity] = until
	}
}

func (c *Client) paused(identity string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.pauses[identity]
	if !ok {
		return 0
	}
	left := until.Sub(c.now())
	if left <= 0 {
		delete(c.pauses, identity)
	}
	return left
}

// authorization shows the PAT that is to be proved, or a bearer token of the
// identity. A refused bearer token is replaced by a new one, once.
type authorization struct{ client *Client }

func (a authorization) Do(req *policy.Request) (*http.Response, error) {
	var k *call
	req.OperationValue(&k)
	h := req.Raw().Header
	if !k.basic.Empty() {
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(":"+k.basic.Reveal())))
		return k.next(req)
	}
	ctx := req.Raw().Context()
	source := a.client.bearer(k.owner.Identity, k.scopes)
	token, err := source.get(ctx, rotation.Secret{}, "")
	if err != nil {
		return nil, err
	}
	h.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := k.next(req)
	if err != nil || !refused(resp) {
		return resp, err
	}
	claims := cmp.Or(challenge(resp.Header), "{}")
	runtime.Drain(resp)
	if token, err = source.get(ctx, token, claims); err != nil {
		return nil, err
	}
	if err := req.RewindBody(); err != nil {
		return nil, err
	}
	h.Set("Authorization", "Bearer "+token.Reveal())
	return k.next(req)
}

// next sends, and notes whether the answer is outstanding: it is not if the
// connection was never made.
func (k *call) next(req *policy.Request) (*http.Response, error) {
	if err := req.Raw().Context().Err(); err != nil {
		return nil, err
	}
	k.pending = true
	resp, err := req.Next()
	if err == nil {
		k.pending = false
		return resp, nil
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		k.pending = false
	}
	return nil, err
}

// refused reports that the credentials were not accepted, so that the request
// cannot have had an effect.
func refused(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusNonAuthoritativeInfo:
		return true
	}
	return resp.StatusCode >= 300 && resp.StatusCode < 400
}

// challenge finds the claims of a continuous access evaluation challenge.
func challenge(h http.Header) string {
	for _, v := range h.Values("WWW-Authenticate") {
		if !strings.Contains(v, `error="insufficient_claims"`) {
			continue
		}
		_, rest, _ := strings.Cut(v, `claims="`)
		text, _, _ := strings.Cut(rest, `"`)
		text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
		claims, err := base64.RawStdEncoding.DecodeString(text)
		if err == nil && len(claims) > 0 && claims[0] == '{' && json.Valid(claims) {
			return string(claims)
		}
	}
	return ""
}

// bearing is what a bearer token is for.
type bearing struct{ identity, scopes string }

// bearer holds one identity's current bearer token.
type bearer struct {
	client   *Client
	identity string
	scopes   []string
	turn     chan struct{} // one at a time asks the credential
	token    rotation.Secret
	refresh  time.Time // from then on a new one is asked for
	expires  time.Time
}

func (c *Client) bearer(identity string, scopes []string) *bearer {
	if len(scopes) == 0 {
		scopes = c.scopes
	}
	key := bearing{identity, strings.Join(scopes, " ")}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.identities[key]
	if b == nil {
		b = &bearer{client: c, identity: identity, scopes: scopes, turn: make(chan struct{}, 1)}
		c.identities[key] = b
	}
	return b
}

// get returns a token. refused is one that Azure DevOps has just not accepted:
// unless somebody has replaced it already, a new one is asked for with the claims.
func (b *bearer) get(ctx context.Context, refused rotation.Secret, claims string) (rotation.Secret, error) {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return rotation.Secret{}, ctx.Err()
	}
	now := b.client.now()
	rejected := !refused.Empty() && b.token == refused
	if !b.token.Empty() && !rejected && now.Before(b.refresh) {
		return b.token, nil
	}
	credential, err := b.client.credential(b.identity)
	var t azcore.AccessToken
	if err == nil {
		o := policy.TokenRequestOptions{Scopes: b.scopes}
		if rejected {
			o.Claims = claims
		}
		t, err = credential.GetToken(ctx, o)
	}
	if err != nil {
		if !b.token.Empty() && !rejected && now.Before(b.expires) && rotation.ClassOf(err) != rotation.SignIn {
			return b.token, nil // it still lives: Entra's trouble need not be ours yet
		}
		return rotation.Secret{}, credentialError{err}
	}
	b.token, b.expires = rotation.NewSecret(t.Token), t.ExpiresOn
	if b.refresh = t.RefreshOn; b.refresh.IsZero() || b.refresh.After(t.ExpiresOn) {
		b.refresh = t.ExpiresOn.Add(-tokenMargin)
	}
	return b.token, nil
}

// credentialError marks an error that came from the credential and not from
// Azure DevOps.
type credentialError struct{ err error }

func (e credentialError) Error() string { return "getting a bearer token" }
func (e credentialError) Unwrap() error { return e.err }
