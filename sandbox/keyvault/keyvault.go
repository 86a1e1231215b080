// Package keyvault is the data plane of secrets of one Azure Key Vault, kept in
// memory: authentication challenge, versions, tags, attributes, soft delete,
// limits, throttling and the events that a vault sends to Event Grid.
//
// It refuses what the real service refuses. It must not know who writes to it or
// what the tags mean. Backup, restore, keys and certificates are left out.
package keyvault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
)

// Service is the vault's name for a faults.Injector.
const Service = "keyvault"

// Operations, as a faults.Injector names them. Challenge counts the requests without a token,
// by which a client asks where to get one.
const (
	Challenge            = "challenge"
	GetSecret            = "GetSecret"
	SetSecret            = "SetSecret"
	UpdateSecret         = "UpdateSecret"
	ListSecrets          = "ListSecrets"
	ListVersions         = "ListVersions"
	DeleteSecret         = "DeleteSecret"
	GetDeletedSecret     = "GetDeletedSecret"
	ListDeletedSecrets   = "ListDeletedSecrets"
	RecoverDeletedSecret = "RecoverDeletedSecret"
	PurgeDeletedSecret   = "PurgeDeletedSecret"
)

// Config describes a vault. URL, Authority, Tenant and Verify must be set.
type Config struct {
	// URL is the vault's public address, https://<vault>.vault.azure.net;
	// secret identifiers and links to next pages begin with it.
	URL string
	// Authority and Tenant go into the challenge: <Authority>/<Tenant>.
	Authority string
	Tenant    string
	// Resource is the audience that the challenge names; empty:
	// https://vault.azure.net.
	Resource string
	// ChallengeScope names the audience as a scope too, as newer vaults do.
	ChallengeScope bool
	// Verify returns what is wrong with a bearer token; nil: nothing.
	Verify func(token string) error
	// Allow says whether the bearer of a verified token may do an operation with a
	// secret, whose name is empty for a list; nil: everything.
	Allow func(token, operation, secret string) bool
	// Injector counts calls and injects faults; may be nil.
	Injector *faults.Injector
	// OnChange is called after each write to a secret, one call at a time and
	// before the writer has its answer. It may read the vault but must not write
	// to it.
	OnChange func(name string, v Version)

	// NoThrottle switches the limits per 10 seconds off.
	NoThrottle bool
	// LongTags permits 512 characters in a tag's name and value, as the
	// newer documentation does; otherwise the older limit of 256 holds.
	LongTags bool
	// DisabledCode is the inner error code for a version that is disabled;
	// empty: SecretDisabled. "-" leaves the inner error out.
	DisabledCode string
	// EmptyPages lets every list begin with an empty page that has a link to
	// the next one, which clients must follow.
	EmptyPages bool
	// EmptyVersions answers the list of versions of an unknown secret with an
	// empty page instead of 404.
	EmptyVersions bool
	// DeleteDelay and RecoverDelay are how long a deletion and a recovery
	// stay under way; 0: done at once.
	DeleteDelay  time.Duration
	RecoverDelay time.Duration
	// RetentionDays is how long a deleted secret can be recovered; 0: 90.
	RetentionDays int
	// PurgeProtection refuses purges.
	PurgeProtection bool

	// Emit receives the vault's events; nil: there is no event subscription.
	// It is called from timers and must not block for long.
	Emit func(event []byte)
	// Events is how events are written.
	Events EventFormat
}

// The service's limits.
const (
	maxValue       = 25600
	maxContentType = 255
	maxTags        = 15
	pageSize       = 25
	createsPerSlot = 300
	othersPerSlot  = 4000
	slot           = 10 * time.Second
)

// Version is one version of a secret, as tests read and write it.
type Version struct {
	Name        string
	ID          string // 32 hex digits
	URL         string // secret identifier with the version
	Value       string
	ContentType string
	Tags        map[string]string
	Enabled     bool
	Created     time.Time
	Updated     time.Time
	Expires     time.Time // zero: no exp
	NotBefore   time.Time // zero: no nbf
	// Deleted: the secret is soft-deleted or about to be.
	Deleted bool
	// Purged: the secret has just been purged, with all its versions. Only
	// Config.OnChange sees it.
	Purged bool
}

// secret is a name with its versions, oldest first.
type secret struct {
	name         string // as first written
	versions     []*Version
	deleted      time.Time // zero: not deleted
	deletionEnds time.Time // when the deletion is complete
	recoveryEnds time.Time // when the recovery is complete; zero: none under way
	timers       []*time.Timer
}

func (s *secret) latest() *Version { return s.versions[len(s.versions)-1] }

// phase is where a secret is between active and deleted.
type phase int

const (
	active phase = iota
	deleting
	deleted
	recovering
)

// Vault is a Key Vault. Use New.
type Vault struct {
	cfg     Config
	host    string
	handler http.Handler

	// writing is held through a write and its OnChange call, so that the
	// hook sees writes one at a time and in their order.
	writing sync.Mutex

	mu       sync.Mutex
	secrets  map[string]*secret // by lower-case name
	names    []string           // the map's keys, sorted: pages need an order
	made     int                // versions ever made
	events   int                // events ever sent
	requests int
	slotEnd  time.Time
	creates  int
	others   int
	closed   bool
	emitting sync.WaitGroup
	// creations are the pending events of new versions: unlike those of
	// expiry they outlive the next version.
	creations map[*time.Timer]struct{}
}

// New makes an empty vault.
func New(c Config) (*Vault, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("key vault: %q is not an https URL", c.URL)
	}
	if c.Authority == "" || c.Tenant == "" {
		return nil, errors.New("key vault: the challenge needs an authority and a tenant")
	}
	if c.Verify == nil {
		return nil, errors.New("key vault: Verify is missing")
	}
	c.URL = strings.TrimSuffix(c.URL, "/")
	c.Authority = strings.TrimSuffix(c.Authority, "/")
	if c.Resource == "" {
		c.Resource = "https://vault.azure.net"
	}
	if c.DisabledCode == "" {
		c.DisabledCode = "SecretDisabled"
	}
	if c.RetentionDays == 0 {
		c.RetentionDays = 90
	}
	if c.Events.NearExpiryDelay == 0 {
		c.Events.NearExpiryDelay = 3 * time.Minute
	}
	v := &Vault{cfg: c, host: u.Host, secrets: map[string]*secret{}, creations: map[*time.Timer]struct{}{}}
	v.handler = c.Injector.Wrap(Service, operation, http.HandlerFunc(v.serve))
	return v, nil
}

// ServeHTTP is the data plane.
func (v *Vault) ServeHTTP(w http.ResponseWriter, r *http.Request) { v.handler.ServeHTTP(w, r) }

// Close stops the timers and waits for events that are being emitted.
func (v *Vault) Close() {
	v.mu.Lock()
	v.closed = true
	for _, s := range v.secrets {
		s.disarm()
	}
	for t := range v.creations {
		t.Stop()
	}
	v.mu.Unlock()
	v.emitting.Wait()
}

// Versions returns every version of a secret with its value, oldest first.
// A soft-deleted secret has its versions still.
func (v *Vault) Versions(name string) []Version {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.find(name)
	if s == nil {
		return nil
	}
	out := make([]Version, len(s.versions))
	for i, ver := range s.versions {
		out[i] = s.snapshot(ver)
	}
	return out
}

// Names returns the names of all secrets, soft-deleted ones included, sorted.
func (v *Vault) Names() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]string, 0, len(v.names))
	for _, key := range v.names {
		out = append(out, v.secrets[key].name)
	}
	return out
}

// Put writes a new version by hand: Name, Value, ContentType, Tags, Expires and
// NotBefore count, and the version is enabled. The limits hold, throttling does
// not.
func (v *Vault) Put(p Version) (Version, error) {
	return v.set(p.Name, content{
		value: &p.Value, contentType: &p.ContentType, tags: p.Tags,
		expires: seconds(p.Expires), notBefore: seconds(p.NotBefore),
	})
}

// Change edits one version by hand: ContentType, Tags, Enabled, Expires and
// NotBefore of what edit leaves behind. id may be empty: the latest.
func (v *Vault) Change(name, id string, edit func(*Version)) (Version, error) {
	v.mu.Lock()
	_, ver, err := v.version(name, id)
	if err != nil {
		v.mu.Unlock()
		return Version{}, err
	}
	next := clone(ver)
	v.mu.Unlock()
	edit(&next)
	if next.Tags == nil {
		next.Tags = map[string]string{}
	}
	return v.update(name, next.ID, content{
		contentType: &next.ContentType, tags: next.Tags, enabled: &next.Enabled,
		expires: seconds(next.Expires), notBefore: seconds(next.NotBefore),
	})
}

// Delete deletes a secret by hand, as DELETE does.
func (v *Vault) Delete(name string) error {
	_, err := v.remove(name)
	return err
}

// Recover brings a deleted secret back by hand, as POST deletedsecrets/recover does.
func (v *Vault) Recover(name string) error {
	_, err := v.restore(name)
	return err
}

// Purge purges a deleted secret by hand, as DELETE deletedsecrets does.
func (v *Vault) Purge(name string) error { return v.purge(name) }

// content is what a write asks for; nil: left out.
type content struct {
	value       *string
	contentType *string
	tags        map[string]string
	enabled     *bool
	expires     *int64
	notBefore   *int64
}

func (v *Vault) set(name string, c content) (Version, error) {
	if err := v.check(name, c); err != nil {
		return Version{}, err
	}
	if c.value == nil {
		return Version{}, bad("The property value is required.")
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	v.mu.Lock()
	s := v.find(name)
	if s == nil {
		s = &secret{name: name}
	} else if err := v.conflict(s); err != nil {
		v.mu.Unlock()
		return Version{}, err
	}
	v.made++
	now := time.Now().UTC().Truncate(time.Second)
	ver := &Version{Name: s.name, ID: v.id(name, v.made), Value: *c.value, Enabled: true, Created: now,
		Tags: map[string]string{}}
	ver.URL = v.cfg.URL + "/secrets/" + s.name + "/" + ver.ID
	apply(ver, c, now)
	if len(s.versions) == 0 {
		key := strings.ToLower(name)
		v.secrets[key] = s
		at, _ := slices.BinarySearch(v.names, key)
		v.names = slices.Insert(v.names, at, key)
	}
	s.versions = append(s.versions, ver)
	v.arm(s, true)
	out := s.snapshot(ver)
	v.mu.Unlock()
	v.notifyChange(out)
	return out, nil
}

func (v *Vault) update(name, id string, c content) (Version, error) {
	if err := v.check(name, c); err != nil {
		return Version{}, err
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	v.mu.Lock()
	if s := v.find(name); s != nil && v.phase(s) != active && v.phase(s) != deleted {
		err := v.conflict(s)
		v.mu.Unlock()
		return Version{}, err
	}
	s, ver, err := v.version(name, id)
	if err != nil {
		v.mu.Unlock()
		return Version{}, err
	}
	moved := *ver
	apply(&moved, c, time.Now().UTC().Truncate(time.Second))
	if !moved.Expires.IsZero() && !moved.NotBefore.IsZero() && !moved.Expires.After(moved.NotBefore) {
		v.mu.Unlock()
		return Version{}, bad("The attribute exp must be later than nbf.")
	}
	expiryMoved := !moved.Expires.Equal(ver.Expires)
	*ver = moved
	if ver == s.latest() && expiryMoved && v.cfg.Events.RearmOnUpdate {
		v.arm(s, false)
	}
	out := s.snapshot(ver)
	v.mu.Unlock()
	v.notifyChange(out)
	return out, nil
}

func (v *Vault) remove(name string) (*secret, error) {
	v.writing.Lock()
	defer v.writing.Unlock()
	v.mu.Lock()
	s := v.find(name)
	if s == nil || v.phase(s) == deleted {
		v.mu.Unlock()
		return nil, notFound(name)
	}
	if err := v.conflict(s); err != nil {
		v.mu.Unlock()
		return nil, err
	}
	s.deleted = time.Now().UTC().Truncate(time.Second)
	s.deletionEnds = time.Now().Add(v.cfg.DeleteDelay)
	s.disarm()
	out := s.snapshot(s.latest())
	v.mu.Unlock()
	v.notifyChange(out)
	return s, nil
}

func (v *Vault) restore(name string) (*secret, error) {
	v.writing.Lock()
	defer v.writing.Unlock()
	v.mu.Lock()
	s := v.find(name)
	if s == nil || v.phase(s) == active {
		v.mu.Unlock()
		return nil, notFound(name)
	}
	if p := v.phase(s); p != deleted {
		err := v.conflict(s)
		v.mu.Unlock()
		return nil, err
	}
	s.recoveryEnds = time.Now().Add(v.cfg.RecoverDelay)
	v.phase(s) // active at once where there is no delay
	v.arm(s, false)
	out := s.snapshot(s.latest())
	v.mu.Unlock()
	v.notifyChange(out)
	return s, nil
}

func (v *Vault) purge(name string) error {
	v.writing.Lock()
	defer v.writing.Unlock()
	v.mu.Lock()
	out, err := v.purgeLocked(name)
	v.mu.Unlock()
	if err != nil {
		return err
	}
	v.notifyChange(out)
	return nil
}

// purgeLocked purges a secret and gives its last version; mu is held.
func (v *Vault) purgeLocked(name string) (Version, error) {
	s := v.find(name)
	if s == nil || v.phase(s) == active {
		return Version{}, notFound(name)
	}
	if p := v.phase(s); p != deleted {
		return Version{}, v.conflict(s)
	}
	if v.cfg.PurgeProtection {
		return Version{}, &failure{http.StatusForbidden, "Forbidden",
			"Purge protection is on: the secret cannot be purged.", "", 0}
	}
	out := s.snapshot(s.latest())
	out.Purged = true
	v.forget(name)
	return out, nil
}

func (v *Vault) notifyChange(ver Version) {
	if v.cfg.OnChange != nil {
		v.cfg.OnChange(ver.Name, ver)
	}
}

// find returns a secret in whatever phase, nil if there is none. A deleted one
// whose retention has passed is gone.
func (v *Vault) find(name string) *secret {
	s := v.secrets[strings.ToLower(name)]
	if s != nil && v.phase(s) == deleted && time.Now().After(v.purgeAt(s)) {
		v.forget(name)
		return nil
	}
	return s
}

func (v *Vault) forget(name string) {
	key := strings.ToLower(name)
	v.secrets[key].disarm()
	delete(v.secrets, key)
	at, _ := slices.BinarySearch(v.names, key)
	v.names = slices.Delete(v.names, at, at+1)
}

func (v *Vault) purgeAt(s *secret) time.Time { return s.deleted.AddDate(0, 0, v.cfg.RetentionDays) }

// phase returns where a secret is, and ends a recovery whose time has come.
func (v *Vault) phase(s *secret) phase {
	now := time.Now()
	switch {
	case s.deleted.IsZero():
		return active
	case now.Before(s.deletionEnds):
		return deleting
	case s.recoveryEnds.IsZero():
		return deleted
	case now.Before(s.recoveryEnds):
		return recovering
	}
	s.deleted, s.deletionEnds, s.recoveryEnds = time.Time{}, time.Time{}, time.Time{}
	return active
}

// version finds one version of a secret that is there; id empty: the latest.
func (v *Vault) version(name, id string) (*secret, *Version, error) {
	s := v.find(name)
	if s == nil || v.phase(s) != active {
		return nil, nil, notFound(name)
	}
	if id == "" {
		return s, s.latest(), nil
	}
	for _, ver := range s.versions {
		if strings.EqualFold(ver.ID, id) {
			return s, ver, nil
		}
	}
	return nil, nil, notFound(name + "/" + id)
}

// conflict returns why a name cannot be written to; nil: it can.
func (v *Vault) conflict(s *secret) error {
	var message, inner string
	switch v.phase(s) {
	case deleting:
		message, inner = "is being deleted; its name can be used once that is done.", "ObjectIsBeingDeleted"
	case deleted:
		message, inner = "is deleted but recoverable: its name is taken until it is recovered or purged.",
			"ObjectIsDeletedButRecoverable"
	case recovering:
		message, inner = "is being recovered; it can be written to once that is done.", "ObjectIsBeingRecovered"
	default:
		return nil
	}
	return &failure{http.StatusConflict, "Conflict", "Secret " + s.name + " " + message, inner, 0}
}

// id makes a version's id: the same run gives the same ids.
func (v *Vault) id(name string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d", v.cfg.URL, strings.ToLower(name), n))
	return hex.EncodeToString(sum[:16])
}

func (s *secret) snapshot(ver *Version) Version {
	out := clone(ver)
	out.Deleted = !s.deleted.IsZero()
	return out
}

func clone(ver *Version) Version {
	out := *ver
	out.Tags = maps.Clone(ver.Tags)
	return out
}

func apply(ver *Version, c content, now time.Time) {
	ver.Updated = now
	if c.contentType != nil {
		ver.ContentType = *c.contentType
	}
	if c.tags != nil {
		ver.Tags = maps.Clone(c.tags)
	}
	if c.enabled != nil {
		ver.Enabled = *c.enabled
	}
	if c.expires != nil {
		ver.Expires = time.Unix(*c.expires, 0).UTC()
	}
	if c.notBefore != nil {
		ver.NotBefore = time.Unix(*c.notBefore, 0).UTC()
	}
}

func seconds(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.Unix()
	return &n
}
