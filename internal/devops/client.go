// Package devops is patrol's client of Azure DevOps: the lifecycle of personal
// access tokens (list, get, create, update, revoke), the proof that a token
// works, and an administrator's acts on the PATs of others. It implements
// rotation.Tokens and administration.Organizations over azcore's pipeline.
//
// It must not know the manifest, the vault, or when a PAT is due; nor how an
// identity signs in: Config.Credential gives its access tokens.
//
// Of what Azure DevOps writes in an answer only names reach an error, and only if they
// have the form of a name: an exception's type, a TF number, a patTokenError.
package devops

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Resource is Azure DevOps' application id in Microsoft Entra: the resource
// whose delegated permissions an identity signs in for.
const Resource = "499b84ac-1321-427f-aa17-267ca6975798"

// DefaultScopes are the delegated permissions that the PAT lifecycle wants: both
// of them, either alone is refused.
func DefaultScopes() []string { return []string{Resource + "/vso.pats", Resource + "/vso.pats_manage"} }

const (
	defaultURL      = "https://dev.azure.com"
	defaultAuditURL = "https://auditservice.dev.azure.com"

	defaultVersion = "7.1-preview.1"

	// Azure DevOps delays the calls of a busy identity by up to 30 s before it
	// refuses them, so a try must be given far longer than that.
	defaultTryTimeout = 100 * time.Second

	pageSize = 100
	// maxPages stops a list that never ends; an owner of 100,000 PATs is none.
	maxPages = 1000

	anonymousID = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
)

// Config says what a Client is built from. Only Credential must be set.
type Config struct {
	URL      string // default https://dev.azure.com
	VSSPSURL string // default https://vssps.dev.azure.com
	// AuditURL is where the audit log is; default
	// https://auditservice.dev.azure.com, or URL if that is not Azure DevOps'
	// own: no bearer token shall leave a stand-in for the real service.
	AuditURL string
	// APIVersion of tokens/pats; default 7.1-preview.1. If Azure DevOps says
	// that a version needs -preview, the client goes over to the same version
	// with the suffix, and remembers.
	APIVersion string
	// Credential gives the access tokens of an identity. It is asked before each
	// call, so it keeps tokens and renews them in time. A request with Claims wants
	// a new token, not a kept one; "{}" stands for no claims in particular. Errors
	// that are a *rotation.Error are passed on as they are.
	Credential func(identity string) (azcore.TokenCredential, error)
	Scopes     []string // default DefaultScopes
	// ClientOptions: Transport, Retry (MaxRetries, RetryDelay, MaxRetryDelay,
	// TryTimeout) and policies of the caller. Redirects are never followed.
	ClientOptions policy.ClientOptions
	Version       string           // of patrol, for User-Agent
	Now           func() time.Time // default time.Now
	Log           *slog.Logger     // default: discards
}

// Client speaks with Azure DevOps for any number of identities and
// organizations. It is safe for concurrent use.
type Client struct {
	url, vsspsURL, auditURL string

	credential func(string) (azcore.TokenCredential, error)
	scopes     []string
	pipeline   runtime.Pipeline
	userAgent  string
	now        func() time.Time
	log        *slog.Logger

	mu       sync.Mutex
	versions map[string]string            // by resource
	pauses   map[string]time.Time         // by identity: no call before
	refusers map[rotation.Owner]time.Time // until when they are known to refuse every token
}

var _ rotation.Tokens = (*Client)(nil)

// New checks the configuration and makes a Client; it calls nobody.
func New(cfg Config) (*Client, error) {
	c := &Client{
		url:        strings.TrimRight(cmp.Or(cfg.URL, defaultURL), "/"),
		auditURL:   strings.TrimRight(cfg.AuditURL, "/"),
		vsspsURL:   strings.TrimRight(cmp.Or(cfg.VSSPSURL, "https://vssps.dev.azure.com"), "/"),
		credential: cfg.Credential,
		scopes:     slices.Clone(cfg.Scopes),
		userAgent:  "patrol/" + cmp.Or(cfg.Version, "dev"),
		now:        cfg.Now,
		log:        cfg.Log,
		versions:   map[string]string{patsResource: cmp.Or(cfg.APIVersion, defaultVersion)},
		pauses:     map[string]time.Time{},
		refusers:   map[rotation.Owner]time.Time{},
	}
	if c.auditURL == "" {
		c.auditURL = c.url
		if c.url == defaultURL {
			c.auditURL = defaultAuditURL
		}
	}
	var problems []error
	bases := []string{c.url, c.vsspsURL}
	if !slices.Contains(bases, c.auditURL) {
		bases = append(bases, c.auditURL)
	}
	for _, base := range bases {
		if !isPlainURL(base, cfg.ClientOptions.InsecureAllowCredentialWithHTTP) {
			problems = append(problems, fmt.Errorf("the Azure DevOps URL %q is not an https URL without a query", base))
		}
	}
	if c.credential == nil {
		problems = append(problems, errors.New("no credential is configured for Azure DevOps"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if len(c.scopes) == 0 {
		c.scopes = DefaultScopes()
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.pipeline = newPipeline(c, cfg)
	return c, nil
}

// isPlainURL reports whether text is an https URL of a host and a path at most.
func isPlainURL(text string, allowHTTP bool) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	encrypted := u.Scheme == "https" || allowHTTP && u.Scheme == "http"
	bare := u.User == nil && u.RawQuery == "" && u.Fragment == ""
	return u.Host != "" && encrypted && bare
}

const (
	patsResource       = "tokens/pats"
	connectionResource = "connectionData"
)

// List returns every active PAT that the owner has made in the organization,
// and the global ones, newest expiry last.
func (c *Client) List(ctx context.Context, o rotation.Owner) ([]rotation.PAT, error) {
	k := &call{owner: o, doing: "listing the PATs"}
	q := url.Values{
		"displayFilterOption": {"active"}, "sortByOption": {"displayDate"}, "isSortAscending": {"true"},
		"$top": {fmt.Sprint(pageSize)},
	}
	var pats []rotation.PAT
	ids, tokens, scopes := map[string]bool{}, map[string]bool{}, map[string][]string{}
	for range maxPages {
		a, err := c.do(ctx, k, http.MethodGet, patsResource, q, nil)
		if err != nil {
			return nil, err
		}
		var page pagedPATs
		if err := a.decode(&page); err != nil {
			return nil, k.badAnswer(a)
		}
		for _, w := range page.PATs {
			p, err := w.pat()
			if err != nil {
				return nil, k.badAnswer(a)
			}
			// Many PATs have the same scopes: one copy of them is enough.
			if same, ok := scopes[w.Scope]; ok {
				p.Scopes = same
			} else {
				scopes[w.Scope] = p.Scopes
			}
			// A PAT that is made or revoked between two pages may shift
			// the rest.
			if !ids[p.AuthorizationID] {
				ids[p.AuthorizationID] = true
				pats = append(pats, p)
			}
		}
		next := page.ContinuationToken
		if next == "" {
			return pats, nil
		}
		if tokens[next] {
			return nil, k.badAnswer(a)
		}
		tokens[next] = true
		q.Set("continuationToken", next)
	}
	return nil, k.endlessList()
}

// Get returns one PAT of the owner, rotation.ErrNotFound if there is none. Azure
// DevOps does not say whether it still shows a revoked one.
func (c *Client) Get(ctx context.Context, o rotation.Owner, authorizationID string) (rotation.PAT, error) {
	k := &call{owner: o, doing: "reading a PAT", absence: true}
	a, err := c.do(ctx, k, http.MethodGet, patsResource, url.Values{"authorizationId": {authorizationID}}, nil)
	if err != nil {
		return rotation.PAT{}, err
	}
	r, err := k.result(a)
	if err != nil {
		return rotation.PAT{}, err
	}
	if r.PAT == nil {
		return rotation.PAT{}, rotation.ErrNotFound
	}
	p, err := r.PAT.pat()
	if err != nil {
		return rotation.PAT{}, k.badAnswer(a)
	}
	return p, nil
}

// Create issues a PAT. The request leaves once: if its answer is lost, the
// error's class is Ambiguous.
func (c *Client) Create(ctx context.Context, o rotation.Owner, r rotation.PATRequest) (rotation.IssuedPAT, error) {
	k := &call{owner: o, doing: "creating a PAT", once: true}
	body := createRequest{r.DisplayName, strings.Join(r.Scopes, " "), wireTime(r.ValidTo), false}
	a, err := c.do(ctx, k, http.MethodPost, patsResource, nil, body)
	if err != nil {
		return rotation.IssuedPAT{}, err
	}
	res, err := k.result(a)
	if err != nil {
		return rotation.IssuedPAT{}, err
	}
	if res.PAT == nil || res.PAT.Token.Empty() {
		return rotation.IssuedPAT{}, k.badAnswer(a)
	}
	p, err := res.PAT.pat()
	if err != nil {
		return rotation.IssuedPAT{}, k.badAnswer(a)
	}
	if !hasKnownForm(res.PAT.Token.Reveal()) {
		c.log.WarnContext(ctx, "a new PAT has none of the forms that patrol knows; patrol uses it all the same",
			"organization", o.Organization, "authorizationId", p.AuthorizationID, "activityId", a.activityID())
	}
	return rotation.IssuedPAT{PAT: p, Token: res.PAT.Token.Secret}, nil
}

// Update changes a PAT's end; its token stays. The answer's ValidTo counts: a
// policy may have shortened it. rotation.ErrNotFound if there is no such PAT.
// It names the end and not a difference, so repeating it is safe.
func (c *Client) Update(ctx context.Context, o rotation.Owner, authorizationID string, validTo time.Time) (rotation.PAT,
	error) {
	k := &call{owner: o, doing: "changing a PAT's end", absence: true}
	body := updateRequest{AuthorizationID: authorizationID, ValidTo: wireTime(validTo)}
	a, err := c.do(ctx, k, http.MethodPut, patsResource, nil, body)
	if err != nil {
		return rotation.PAT{}, err
	}
	r, err := k.result(a)
	if err != nil {
		return rotation.PAT{}, err
	}
	if r.PAT == nil {
		return rotation.PAT{}, k.badAnswer(a)
	}
	p, err := r.PAT.pat()
	if err != nil {
		return rotation.PAT{}, k.badAnswer(a)
	}
	return p, nil
}

// Revoke ends a PAT. If Azure DevOps says that there is none, the list of active
// ones must say so too: a mistyped organization knows no PATs either.
func (c *Client) Revoke(ctx context.Context, o rotation.Owner, authorizationID string) error {
	k := &call{owner: o, doing: "revoking a PAT", absence: true, empty: true}
	a, err := c.do(ctx, k, http.MethodDelete, patsResource, url.Values{"authorizationId": {authorizationID}}, nil)
	if err == nil && len(a.body) > 0 {
		_, err = k.result(a)
	}
	if !errors.Is(err, rotation.ErrNotFound) {
		return err
	}
	active, err := c.List(ctx, o)
	if err != nil {
		return err
	}
	for _, p := range active {
		if strings.EqualFold(p.AuthorizationID, authorizationID) {
			return k.fail(rotation.Transient, "still-active",
				"Azure DevOps does not find the PAT, but lists it as active", nil)
		}
	}
	return nil
}

// Prove asks the organization whose token this is: the id of the identity.
func (c *Client) Prove(ctx context.Context, o rotation.Owner, token rotation.Secret) (bearer string, err error) {
	// A new PAT that is not proved has to be revoked again, which takes two calls more:
	// so this one does not wait for a pause to end.
	k := &call{owner: o, doing: "proving a PAT", basic: token, begun: true}
	if token.Empty() {
		return "", k.fail(rotation.Transient, rotation.TokenRefused, "there is no token to prove", nil)
	}
	a, err := c.do(ctx, k, http.MethodGet, connectionResource, nil, nil)
	if err != nil {
		return "", err
	}
	var who connectionData
	if err := a.decode(&who); err != nil {
		return "", k.badAnswer(a)
	}
	switch id := strings.ToLower(who.AuthenticatedUser.ID); id {
	case "":
		return "", k.badAnswer(a)
	case anonymousID:
		return "", k.with(a, k.fail(rotation.Policy, "anonymous",
			"the organization let the token in as an anonymous user, so it does not accept the token: "+
				"check its policies on PATs", nil))
	default:
		return id, nil
	}
}

// do sends one request, and once more if the API version needs a -preview that
// it does not have, or the other way round.
func (c *Client) do(ctx context.Context, k *call, method, resource string, q url.Values, body any) (*answer, error) {
	version := c.version(resource)
	a, err := c.send(ctx, k, method, resource, version, q, body)
	if _, ok := errors.AsType[*previewError](err); !ok {
		return a, err
	}
	other := toggle(version)
	a, err = c.send(ctx, k, method, resource, other, q, body)
	if e, ok := errors.AsType[*previewError](err); ok {
		return nil, e.refusal
	}
	if err == nil {
		c.remember(resource, other)
	}
	return a, err
}

func (c *Client) send(ctx context.Context, k *call, method, resource, version string, q url.Values, body any) (*answer,
	error) {
	if !isOrganization(k.owner.Organization) {
		return nil, k.badRequest()
	}
	base := c.vsspsURL
	switch resource {
	case connectionResource:
		base = c.url
	case auditResource:
		base = c.auditURL
	}
	query := url.Values{"api-version": {version}}
	for name, values := range q {
		query[name] = values
	}
	req, err := runtime.NewRequest(ctx, method, base+"/"+url.PathEscape(k.owner.Organization)+"/_apis/"+resource+k.item+
		"?"+query.Encode())
	if err != nil {
		return nil, k.badRequest()
	}
	h := req.Raw().Header
	h.Set("Accept", "application/json")
	h.Set("X-TFS-FedAuthRedirect", "Suppress") // 401 instead of a redirect to the sign-in page
	h.Set("User-Agent", c.userAgent)
	if body != nil {
		if err := runtime.MarshalAsJSON(req, body); err != nil {
			return nil, k.badRequest()
		}
	}
	k.pending = false
	req.SetOperationValue(k)
	resp, err := c.pipeline.Do(req)
	if err != nil {
		return nil, k.noAnswer(ctx, err)
	}
	raw, err := runtime.Payload(resp)
	if err != nil {
		k.pending = true
		return nil, k.noAnswer(ctx, err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: trimBOM(raw), at: c.now()}
	return a, k.judge(a)
}

// isOrganization says that a name can be an organization's. It becomes a part of the
// address: "..", or one with a slash, would lead elsewhere.
func isOrganization(name string) bool {
	const characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	isName := name != "" && len(name) <= 256 && strings.Trim(name, characters) == ""
	return isName && strings.Trim(name, ".") != ""
}

func (c *Client) version(resource string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(c.versions[resource], defaultVersion)
}

func (c *Client) remember(resource, version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions[resource] = version
}

func toggle(version string) string {
	if number, _, preview := strings.Cut(version, "-"); preview {
		return number
	}
	return version + "-preview.1"
}

// answer is what Azure DevOps said.
type answer struct {
	status int
	header http.Header
	body   []byte
	at     time.Time
}

func (a *answer) decode(v any) error { return json.Unmarshal(a.body, v) }
