package devops

import (
	"bytes"
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

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/azure-patrol/patrol/internal/retryafter"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// maxBody is far more than a page of 100 PATs.
	maxBody = 8 << 20
	// maxPause is the longest that a Retry-After is believed; Azure DevOps
	// counts in windows of five minutes.
	maxPause = time.Hour
)

// newPipeline puts the client's own retries and authorization where azcore has its
// retry policy, which it switches off: that one would repeat a POST, and ignores a
// Retry-After that comes with a success.
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
		if err := r.waitForPause(ctx, k); err != nil {
			return nil, err
		}
		resp, err := r.once(req)
		asked := time.Duration(0)
		if err == nil {
			asked = wait(resp.Header, resp.StatusCode, r.client.now())
			r.client.pause(k.owner.Identity, asked)
		}
		givenUp := try == r.max || asked > r.longest(ctx, k) || ctx.Err() != nil
		if givenUp || k.once || !repeatable(resp, err) {
			return resp, err
		}
		if err == nil {
			runtime.Drain(resp)
			r.client.log.DebugContext(ctx, "repeating a call to Azure DevOps", "doing", k.doing,
				"organization", k.owner.Organization, "status", resp.StatusCode, "retryAfter", asked)
		}
		pause := time.Duration(0) // waitForPause does the rest
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

// longest is how long a pause before the next try may be.
func (r retries) longest(ctx context.Context, k *call) time.Duration {
	if !k.begun {
		return r.maxDelay
	}
	if deadline, limited := ctx.Deadline(); limited {
		return time.Until(deadline)
	}
	return maxPause
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

// waitForPause waits until the identity's pause is over. One that is too long, or longer than the
// caller has time, is an error at once.
func (r retries) waitForPause(ctx context.Context, k *call) error {
	for {
		left := r.client.pauseLeft(k.owner.Identity)
		if left <= 0 || k.begun {
			return nil
		}
		deadline, limited := ctx.Deadline()
		if left > r.maxDelay || limited && time.Until(deadline) < left {
			e := k.fail(rotation.Throttled, "paused",
				"Azure DevOps has asked for a pause in this identity's calls", nil)
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

// wait reads how long Azure DevOps wants the caller to wait; a refused call without
// Retry-After has the budget's reset instead.
func wait(h http.Header, status int, now time.Time) time.Duration {
	if d := retryafter.FromHeader(h, now, maxPause); d > 0 || status != http.StatusTooManyRequests {
		return d
	}
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return 0
	}
	return min(max(time.Unix(reset, 0).Sub(now), 0), maxPause)
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

func (c *Client) pauseLeft(identity string) time.Duration {
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
	token, err := a.token(ctx, k, "")
	if err != nil {
		return nil, err
	}
	h.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := k.next(req)
	if err != nil || !refused(resp) {
		return resp, err
	}
	claims := challenge(resp.Header)
	if claims == "" && a.client.refusesAny(k.owner) {
		return resp, nil
	}
	claims = cmp.Or(claims, "{}")
	runtime.Drain(resp)
	token, err = a.replace(ctx, k, token, claims)
	if err != nil {
		return nil, err
	}
	if err := req.RewindBody(); err != nil {
		return nil, err
	}
	h.Set("Authorization", "Bearer "+token.Reveal())
	resp, err = k.next(req)
	if err == nil {
		a.client.noteRefusal(k.owner, refused(resp))
	}
	return resp, err
}

// refusesFor is how long an organization that has refused a new token too is not taken
// for one that only wants another token: it is mistyped, or the user is not in it.
const refusesFor = 24 * time.Hour

// refusesAny reports whether an organization refuses whatever token it is shown: a new
// one at each look would cost Entra a refresh, and change nothing.
func (c *Client) refusesAny(o rotation.Owner) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, noted := c.refusers[o]
	if noted && !until.After(c.now()) {
		delete(c.refusers, o)
		return false
	}
	return noted
}

func (c *Client) noteRefusal(o rotation.Owner, refused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if refused {
		c.refusers[o] = c.now().Add(refusesFor)
		return
	}
	delete(c.refusers, o)
}

// token asks the identity's credential, which keeps its tokens and renews them in time.
func (a authorization) token(ctx context.Context, k *call, claims string) (rotation.Secret, error) {
	credential, err := a.client.credential(k.owner.Identity)
	if err != nil {
		return rotation.Secret{}, credentialError{err}
	}
	o := policy.TokenRequestOptions{Scopes: k.scopes, Claims: claims}
	if len(o.Scopes) == 0 {
		o.Scopes = a.client.scopes
	}
	t, err := credential.GetToken(ctx, o)
	if err != nil {
		return rotation.Secret{}, credentialError{err}
	}
	return rotation.NewSecret(t.Token), nil
}

// replace gets another token than the one that Azure DevOps has just refused. If
// another call has had it replaced already, that one is not thrown away again.
func (a authorization) replace(ctx context.Context, k *call, refused rotation.Secret,
	claims string) (rotation.Secret, error) {
	token, err := a.token(ctx, k, "")
	if err != nil || token != refused {
		return token, err
	}
	return a.token(ctx, k, claims)
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
		isObject := err == nil && bytes.HasPrefix(claims, []byte("{")) && json.Valid(claims)
		if isObject {
			return string(claims)
		}
	}
	return ""
}

// credentialError marks an error that came from the credential and not from
// Azure DevOps.
type credentialError struct{ err error }

func (e credentialError) Error() string { return "getting an access token" }
func (e credentialError) Unwrap() error { return e.err }
