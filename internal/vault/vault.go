// Package vault keeps PATs and sign-ins in Key Vault: one secret each, whose
// versions and tags are patrol's only memory. It implements rotation.Vault over
// azsecrets, and the store of the identities' sign-ins.
//
// It must not know Azure DevOps, Entra's tokens or what happens next: it turns
// versions into rotation.Version, tags into rotation.Ledger and failures into
// rotation.Error, and back. Time, transport and credential come from outside.
package vault

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// ContentType marks a secret that holds a PAT.
const ContentType = "application/vnd.patrol.pat"

const (
	// tryTimeout ends one attempt at a call, so that a vault that hangs is
	// asked again while the caller's own deadline still stands.
	tryTimeout = 20 * time.Second
	// Key Vault asks for at most ten seconds when it throttles; a longer wait
	// is better spent in the queue.
	maxRetryDelay = 15 * time.Second
	// remembered versions, a kilobyte each.
	remembered = 2048
	// Recovering takes seconds, a minute at worst.
	recoverPause = 2 * time.Second
	recoverLimit = 2 * time.Minute
	// maxValue is Key Vault's limit for a value in bytes.
	maxValue = 25600
)

var (
	secretName = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)
	versionID  = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
)

// Config says which vault, as whom, over what.
type Config struct {
	// URL is the vault's address, https://<vault>.vault.azure.net.
	URL string
	// Credential gets tokens for the vault.
	Credential azcore.TokenCredential
	// ClientOptions holds the transport and the retries; zero values mean the
	// SDK's defaults, with 20 s for an attempt and no pause above 15 s.
	// Bodies are never logged, whatever it says.
	ClientOptions azcore.ClientOptions
	// DisableChallengeResourceVerification is for a vault on a loopback
	// address, whose name does not end as the challenge's audience does.
	DisableChallengeResourceVerification bool
	// Log gets what is worth a line; nil: nothing is logged.
	Log *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Vault is a Key Vault's secrets. It is safe for concurrent use.
type Vault struct {
	client *azsecrets.Client
	retry  policy.RetryOptions
	log    *slog.Logger
	now    func() time.Time
	memory *memory
}

var _ rotation.Vault = (*Vault)(nil)

// New prepares the client; it does not call the vault.
func New(c Config) (*Vault, error) {
	host, ok := hostOf(c.URL)
	if !ok {
		return nil, configuration("vault-url",
			"the vault's URL must be of the form https://<vault>.vault.azure.net: set KEY_VAULT_URL")
	}
	if c.Credential == nil {
		return nil, configuration(rotation.VaultCredential, "there is no credential for the vault")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	o := c.ClientOptions
	if o.Retry.TryTimeout == 0 {
		o.Retry.TryTimeout = tryTimeout
	}
	if o.Retry.MaxRetryDelay == 0 {
		o.Retry.MaxRetryDelay = maxRetryDelay
	}
	o.Logging.IncludeBody = false // a body is a secret here
	o.PerRetryPolicies = append(append([]policy.Policy(nil), o.PerRetryPolicies...), attemptCounter{})
	client, err := azsecrets.NewClient("https://"+host, c.Credential, &azsecrets.ClientOptions{
		ClientOptions:                        o,
		DisableChallengeResourceVerification: c.DisableChallengeResourceVerification,
	})
	if err != nil {
		return nil, configuration("vault-client",
			"the client for the vault could not be made: check the cloud and the API version")
	}
	return &Vault{client: client, retry: o.Retry, log: c.Log, now: c.Now, memory: newMemory(remembered)}, nil
}

// hostOf reads a vault's address, which is a host and nothing else.
func hostOf(address string) (host string, ok bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", false
	}
	bare := u.User == nil && u.RawQuery == "" && u.Fragment == ""
	return u.Host, bare && strings.Trim(u.Path, "/") == ""
}

// Current reads the latest version afresh, with its value. A disabled latest
// version, which Key Vault does not give out, is found in the list of versions.
func (v *Vault) Current(ctx context.Context, name string) (rotation.Version, error) {
	doing := "reading secret " + name
	if err := checkName(doing, name); err != nil {
		return rotation.Version{}, err
	}
	// The latest version may be enabled or replaced between the refusal and
	// the list; then the list is no answer and the read is repeated.
	for range 3 {
		got, err := v.client.GetSecret(ctx, name, "", nil)
		if err == nil {
			out, err := v.read(doing, name, got.Secret)
			if err != nil {
				return rotation.Version{}, err
			}
			v.memory.put(out)
			if got.Value != nil {
				out.Value = rotation.NewSecret(*got.Value)
			}
			return out, nil
		}
		if !mayBeDisabled(err) {
			return rotation.Version{}, v.failure(doing, err)
		}
		latest, listErr := v.latest(ctx, name)
		if listErr != nil {
			return rotation.Version{}, listErr
		}
		if !latest.Enabled {
			return latest, nil
		}
		if !saysDisabled(err) {
			return rotation.Version{}, v.failure(doing, err)
		}
	}
	return rotation.Version{}, &rotation.Error{Class: rotation.Transient, Code: rotation.VaultConflict,
		Message: doing + ": its latest version keeps changing"}
}

// Version reads one version's properties. Ledgers of versions that this process
// has read or written are answered from memory. What another process, or a person,
// has changed since is not seen: a PAT may be revoked twice, which is harmless, and an
// order that somebody has written onto a replaced version is found by its command.
func (v *Vault) Version(ctx context.Context, name, version string) (rotation.Version, error) {
	doing := "reading a version of secret " + name
	if err := checkName(doing, name); err != nil {
		return rotation.Version{}, err
	}
	if !versionID.MatchString(version) {
		return rotation.Version{}, fmt.Errorf("%s: %w", doing, rotation.ErrNotFound)
	}
	if known, ok := v.memory.get(name, version); ok {
		return known, nil
	}
	got, err := v.client.GetSecret(ctx, name, version, nil)
	if err == nil {
		out, err := v.read(doing, name, got.Secret) // leaves the value behind
		if err != nil {
			return rotation.Version{}, err
		}
		v.memory.put(out)
		return out, nil
	}
	if !mayBeDisabled(err) {
		return rotation.Version{}, v.failure(doing, err)
	}
	// The list shows every disabled version: whoever goes on to the ones before reads
	// no list again.
	found := rotation.Version{}
	for listed, listErr := range v.versions(ctx, name) {
		if listErr != nil {
			return rotation.Version{}, listErr
		}
		if strings.EqualFold(listed.ID, version) {
			found = listed
		}
		if !listed.Enabled {
			v.memory.put(listed)
		}
	}
	switch {
	case found.ID == "":
		return rotation.Version{}, fmt.Errorf("%s: %w", doing, rotation.ErrNotFound)
	case found.Enabled && !saysDisabled(err):
		return rotation.Version{}, v.failure(doing, err)
	}
	v.memory.put(found)
	return found, nil
}

// Value reads one version afresh, with its value. A disabled one comes back without it.
func (v *Vault) Value(ctx context.Context, name, version string) (rotation.Version, error) {
	doing := "reading a version of secret " + name
	if err := checkName(doing, name); err != nil {
		return rotation.Version{}, err
	}
	if !versionID.MatchString(version) {
		return rotation.Version{}, fmt.Errorf("%s: %w", doing, rotation.ErrNotFound)
	}
	got, err := v.client.GetSecret(ctx, name, version, nil)
	if mayBeDisabled(err) {
		return v.Version(ctx, name, version)
	}
	if err != nil {
		return rotation.Version{}, v.failure(doing, err)
	}
	out, err := v.read(doing, name, got.Secret)
	if err != nil {
		return rotation.Version{}, err
	}
	v.memory.put(out)
	if got.Value != nil {
		out.Value = rotation.NewSecret(*got.Value)
	}
	return out, nil
}

// Store writes a new version: value, expiry and ledger in one request. The
// version that it returns is the latest also where an answer was lost and the
// SDK wrote twice.
func (v *Vault) Store(ctx context.Context, name string, c rotation.Content) (rotation.Version, error) {
	doing := "storing secret " + name
	tags, err := encode(doing, c.Ledger, carried(c.Foreign))
	if err != nil {
		return rotation.Version{}, err
	}
	got, err := v.set(ctx, doing, name, c.Value, ContentType, tags, c.Expires)
	if err != nil {
		return rotation.Version{}, err
	}
	out, err := v.read(doing, name, got)
	if err != nil {
		return rotation.Version{}, err
	}
	v.memory.put(out)
	out.Value = c.Value
	return out, nil
}

// Update writes the ledger, foreign tags, enabled state and expiry of ver onto
// the version that it names. A zero Expires leaves exp as it is: Key Vault knows
// no way to take it off.
func (v *Vault) Update(ctx context.Context, ver rotation.Version) (rotation.Version, error) {
	doing := "updating secret " + ver.Name
	if err := checkName(doing, ver.Name); err != nil {
		return rotation.Version{}, err
	}
	if !versionID.MatchString(ver.ID) {
		return rotation.Version{}, configuration("vault-version", "%s: the version to update is not named", doing)
	}
	tags, err := encode(doing, ver.Ledger, ver.Foreign)
	if err != nil {
		return rotation.Version{}, err
	}
	got, err := v.client.UpdateSecretProperties(ctx, ver.Name, ver.ID, azsecrets.UpdateSecretPropertiesParameters{
		SecretAttributes: &azsecrets.SecretAttributes{Enabled: &ver.Enabled, Expires: wholeSeconds(ver.Expires)},
		Tags:             tags,
	}, nil)
	if err != nil {
		v.memory.drop(ver.Name, ver.ID) // it may have taken effect
		return rotation.Version{}, v.failure(doing, err)
	}
	out, err := v.read(doing, ver.Name, got.Secret)
	if err != nil {
		return rotation.Version{}, err
	}
	v.memory.put(out)
	out.Value = ver.Value
	return out, nil
}

// Recover brings a soft-deleted secret back and waits until it can be read.
func (v *Vault) Recover(ctx context.Context, name string) (bool, error) {
	doing := "recovering secret " + name
	if err := checkName(doing, name); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, recoverLimit)
	defer cancel()
	_, err := v.client.GetDeletedSecret(ctx, name, nil)
	if err != nil {
		err = v.failure(doing, err)
		if errors.Is(err, rotation.ErrNotFound) {
			return false, nil
		}
		return false, err
	}
	_, err = v.client.RecoverDeletedSecret(ctx, name, nil)
	// Another process may have begun the recovery, or be through with it.
	if err != nil && status(err) != http.StatusNotFound && inner(err) != "ObjectIsBeingRecovered" {
		return false, v.failure(doing, err)
	}
	v.log.InfoContext(ctx, "recovering a deleted secret from the vault's soft-deleted ones", "secret", name)
	for {
		_, err = v.client.GetSecret(ctx, name, "", nil)
		if err == nil || mayBeDisabled(err) {
			return true, nil
		}
		err = v.failure(doing, err)
		if !errors.Is(err, rotation.ErrNotFound) {
			return false, err
		}
		if err := v.pause(ctx, doing); err != nil {
			return false, err
		}
	}
}

// Secrets lists every secret of the vault by its latest version's properties, a
// page at a time.
func (v *Vault) Secrets(ctx context.Context) iter.Seq2[rotation.Version, error] {
	const doing = "listing the vault's secrets"
	return func(yield func(rotation.Version, error) bool) {
		pager := v.client.NewListSecretPropertiesPager(nil)
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				yield(rotation.Version{}, v.failure(doing, err))
				return
			}
			for _, p := range page.Value {
				out, ok := properties(p)
				if !ok {
					yield(rotation.Version{}, unreadable(doing))
					return
				}
				out.ID, out.URL = "", ""
				if !yield(out, nil) {
					return
				}
			}
		}
	}
}

// Deleted lists the secrets that were deleted and can be recovered, by the properties of
// their last versions: Key Vault shows no others.
func (v *Vault) Deleted(ctx context.Context) iter.Seq2[rotation.Version, error] {
	const doing = "listing the vault's deleted secrets"
	return func(yield func(rotation.Version, error) bool) {
		pager := v.client.NewListDeletedSecretPropertiesPager(nil)
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				yield(rotation.Version{}, v.failure(doing, err))
				return
			}
			for _, d := range page.Value {
				out, ok := deletedProperties(d)
				if !ok {
					yield(rotation.Version{}, unreadable(doing))
					return
				}
				if !yield(out, nil) {
					return
				}
			}
		}
	}
}

// versions lists the versions of a secret, in no order.
func (v *Vault) versions(ctx context.Context, name string) iter.Seq2[rotation.Version, error] {
	doing := "listing the versions of secret " + name
	return func(yield func(rotation.Version, error) bool) {
		pager := v.client.NewListSecretPropertiesVersionsPager(name, nil)
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				yield(rotation.Version{}, v.failure(doing, err))
				return
			}
			for _, p := range page.Value {
				out, ok := properties(p)
				if !ok || out.ID == "" {
					yield(rotation.Version{}, unreadable(doing))
					return
				}
				out.Name = name
				if !yield(out, nil) {
					return
				}
			}
		}
	}
}

// latest finds the newest version in the list, after the vault has refused to give it
// out. Creation times are whole seconds: of several versions of one second, those that
// another names as the one it replaces are older, and a disabled one explains the
// refusal.
func (v *Vault) latest(ctx context.Context, name string) (rotation.Version, error) {
	var newest []rotation.Version // all of the same second
	for ver, err := range v.versions(ctx, name) {
		if err != nil {
			return rotation.Version{}, err
		}
		switch {
		case len(newest) == 0 || ver.Created.After(newest[0].Created):
			newest = append(newest[:0], ver)
		case ver.Created.Equal(newest[0].Created):
			newest = append(newest, ver)
		}
	}
	if len(newest) == 0 {
		return rotation.Version{}, fmt.Errorf("listing the versions of secret %s: %w", name, rotation.ErrNotFound)
	}
	replaced := map[string]bool{}
	for _, ver := range newest {
		replaced[ver.Ledger.PreviousVersion] = true
	}
	best := newest[0]
	for _, ver := range newest[1:] {
		if replaced[best.ID] != replaced[ver.ID] {
			if replaced[best.ID] {
				best = ver
			}
		} else if best.Enabled && !ver.Enabled {
			best = ver
		}
	}
	return best, nil
}

// set writes a new version. Where an attempt may have taken effect unseen, the
// latest version is read: if it has our value and tags, it is the answer. What stays
// unknown is never of class Configuration, which callers take for "nothing was stored".
func (v *Vault) set(ctx context.Context, doing, name string, value rotation.Secret, contentType string,
	tags map[string]*string, expires time.Time) (azsecrets.Secret, error) {
	if err := checkName(doing, name); err != nil {
		return azsecrets.Secret{}, err
	}
	plain := value.Reveal()
	if plain == "" || len(plain) > maxValue {
		return azsecrets.Secret{}, configuration("vault-value", "%s: a value has 1 to %d bytes, this one has %d", doing,
			maxValue, len(plain))
	}
	var sent attempts
	got, err := v.client.SetSecret(context.WithValue(ctx, attemptsKey{}, &sent), name, azsecrets.SetSecretParameters{
		Value: &plain, ContentType: &contentType, Tags: tags,
		SecretAttributes: &azsecrets.SecretAttributes{Expires: wholeSeconds(expires)},
	}, nil)
	if err == nil {
		_, err = v.read(doing, name, got.Secret)
	}
	open := sent.Load()
	if settled := err == nil && open == 1 || err != nil && open == 0; settled {
		return got.Secret, v.failure(doing, err)
	}
	retry := v.retry
	retry.MaxRetries = 1
	latest, readErr := v.client.GetSecret(policy.WithRetryOptions(ctx, retry), name, "", nil)
	hasValue := readErr == nil && latest.Value != nil && *latest.Value == plain
	if hasValue && sameTags(latest.Tags, tags) {
		v.log.WarnContext(ctx, "Key Vault's answer to a store was lost; patrol has found its version as the latest",
			"secret", name, "attempts", open)
		return latest.Secret, nil
	}
	err = v.failure(doing, err)
	if e, ok := errors.AsType[*rotation.Error](err); ok && e.Class == rotation.Configuration {
		return azsecrets.Secret{}, &rotation.Error{Class: rotation.Transient, Code: "vault-unsettled",
			ActivityID: e.ActivityID,
			Message: doing + ": Key Vault's answer was lost, and then it refused the app: " +
				"whether the version exists is not known"}
	}
	return got.Secret, err
}

// read makes a version of what the vault answered, without the value. The name
// is the caller's: the vault's may differ in case.
func (v *Vault) read(doing, name string, s azsecrets.Secret) (rotation.Version, error) {
	out, ok := properties(&azsecrets.SecretProperties{ID: s.ID, Attributes: s.Attributes, ContentType: s.ContentType,
		Tags: s.Tags})
	if !ok || out.ID == "" {
		return rotation.Version{}, unreadable(doing)
	}
	out.Name = name
	return out, nil
}

// properties makes a version of a list's entry; false: it is not one.
func properties(p *azsecrets.SecretProperties) (rotation.Version, bool) {
	if p == nil || p.ID == nil {
		return rotation.Version{}, false
	}
	u, err := url.Parse(string(*p.ID))
	if err != nil {
		return rotation.Version{}, false
	}
	name, version, ok := splitPath(u.Path)
	if !ok {
		return rotation.Version{}, false
	}
	out := rotation.Version{Name: name, Enabled: true}
	if version != "" {
		out.ID, out.URL = version, string(*p.ID)
	}
	if p.ContentType != nil {
		out.ContentType = shared(*p.ContentType)
	}
	if a := p.Attributes; a != nil {
		if a.Enabled != nil {
			out.Enabled = *a.Enabled
		}
		if a.Created != nil {
			out.Created = a.Created.UTC()
		}
		if a.Expires != nil {
			out.Expires = a.Expires.UTC()
		}
	}
	out.Ledger, out.Foreign = decode(p.Tags)
	return out, true
}

// splitPath takes /secrets/<name> apart, or /secrets/<name>/<version>.
func splitPath(path string) (name, version string, ok bool) {
	kind, rest, _ := strings.Cut(strings.Trim(path, "/"), "/")
	name, version, versioned := strings.Cut(rest, "/")
	if kind != "secrets" || !secretName.MatchString(name) {
		return "", "", false
	}
	if versioned && !versionID.MatchString(version) {
		return "", "", false
	}
	return name, version, true
}

func (v *Vault) pause(ctx context.Context, doing string) error {
	t := time.NewTimer(recoverPause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return v.failure(doing, ctx.Err())
	}
}

func checkName(doing, name string) error {
	if !secretName.MatchString(name) {
		return configuration("vault-name", "%s: a secret's name has 1 to 127 letters, digits and hyphens", doing)
	}
	return nil
}

// wholeSeconds rounds down: a secret must not promise a moment more than its PAT.
func wholeSeconds(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

func sameTags(a, b map[string]*string) bool {
	return maps.EqualFunc(a, b, func(x, y *string) bool { return x != nil && y != nil && *x == *y })
}

// attempts counts the attempts at a write that may have taken effect: answered
// with success, with a server's error, or not at all.
type attempts struct{ atomic.Int32 }

type attemptsKey struct{}

type attemptCounter struct{}

func (attemptCounter) Do(req *policy.Request) (*http.Response, error) {
	resp, err := req.Next()
	a, counts := req.Raw().Context().Value(attemptsKey{}).(*attempts)
	// Without a token it only asks for the challenge.
	asksForChallenge := req.Raw().Header.Get("Authorization") == ""
	refused := err == nil && saysNoEffect(resp.StatusCode)
	if counts && !asksForChallenge && !refused {
		a.Add(1)
	}
	return resp, err
}

// saysNoEffect reports whether an answer rules out that its request has done anything.
func saysNoEffect(status int) bool {
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout
}

// deletedProperties is properties for a deleted secret, which has no version to read.
func deletedProperties(d *azsecrets.DeletedSecretProperties) (rotation.Version, bool) {
	if d == nil {
		return rotation.Version{}, false
	}
	return properties(&azsecrets.SecretProperties{ID: d.ID, Attributes: d.Attributes, Tags: d.Tags,
		ContentType: d.ContentType})
}
