// Package blob is a local Azure Storage account with its blob service: containers,
// block blobs, ETags and conditions, lists by prefix. Keys and shared access
// signatures are switched off, as in the account that patrol is deployed with: only a
// bearer token opens it.
//
// It knows one way to write a blob, Put Blob, and refuses what it does not know: a
// header or an operation of the service that is not here is answered with 501 and its
// name, never overlooked. It must not know what the blobs are for, nor who may read
// them: Verify says that.
package blob

import (
	"crypto/md5"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
)

// Service is the account's name for a faults.Injector.
const Service = "blob"

// Operations, as a faults.Injector names them.
const (
	CreateContainer   = "CreateContainer"
	PutBlob           = "PutBlob"
	GetBlob           = "GetBlob"
	GetBlobProperties = "GetBlobProperties"
	DeleteBlob        = "DeleteBlob"
	ListBlobs         = "ListBlobs"
	// Unknown is any other request.
	Unknown = "Unknown"
)

// ErrNoRole, or an error that wraps it, says that a token is good and that its bearer
// has no role here.
var ErrNoRole = errors.New("the identity has no role here")

// Config describes an account. URL, Authority, Tenant and Verify must be set.
type Config struct {
	// URL is the account's blob endpoint, https://<account>.blob.core.windows.net.
	URL string
	// Authority and Tenant go into the challenge of an answer 401.
	Authority string
	Tenant    string
	// Verify returns what is wrong with a bearer token; nil: nothing.
	Verify func(token string) error
	// Injector counts calls and injects faults; may be nil.
	Injector *faults.Injector
	// OnChange is called after each write to a blob, one call at a time and before the
	// writer has its answer. It must not write to the account.
	OnChange func(Blob)

	// PageSize is how many blobs a page of a list has at most; 0: 5000.
	PageSize int
	// EmptyPages lets every list begin with an empty page that has a marker, which
	// clients must follow.
	EmptyPages bool
	// ConditionFirst answers a deletion by If-Match of a blob that is not there with 412,
	// as Azurite does, instead of 404. Which of them the service does is not documented.
	ConditionFirst bool
}

// The service's limits.
const (
	maxPage     = 5000
	maxBlobName = 1024
	maxSegments = 254
	// maxBody is the sandbox's own: the service takes 5000 MiB.
	maxBody = 16 << 20
)

// Blob is a blob as tests read and write it.
type Blob struct {
	Container   string
	Name        string
	Value       []byte
	ContentType string
	ETag        string // with its quotes
	Created     time.Time
	Modified    time.Time
	// Deleted: the blob is gone. Only OnChange sees it.
	Deleted bool
}

// Account is a storage account. Use New.
type Account struct {
	cfg     Config
	handler http.Handler

	// writing is held through a write and its OnChange call, so that the hook sees
	// writes one at a time and in their order.
	writing sync.Mutex

	mu         sync.Mutex
	containers map[string]*container
	writes     int // ever made; no two have one ETag
	requests   int
}

type container struct {
	blobs map[string]*Blob
	names []string // the map's keys, sorted: pages need an order
}

// New makes an account with these containers.
func New(c Config, containers ...string) (*Account, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("blob storage: %q is not an https URL", c.URL)
	}
	if c.Authority == "" || c.Tenant == "" || c.Verify == nil {
		return nil, errors.New("blob storage: Authority, Tenant or Verify is missing")
	}
	c.URL, c.Authority = strings.TrimSuffix(c.URL, "/"), strings.TrimSuffix(c.Authority, "/")
	if c.PageSize <= 0 || c.PageSize > maxPage {
		c.PageSize = maxPage
	}
	a := &Account{cfg: c, containers: map[string]*container{}}
	for _, name := range containers {
		if err := a.CreateContainer(name); err != nil {
			return nil, err
		}
	}
	a.handler = c.Injector.Wrap(Service, func(r *http.Request) string { return route(r).operation },
		http.HandlerFunc(a.serve))
	return a, nil
}

// ServeHTTP is the blob service.
func (a *Account) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// CreateContainer makes an empty container.
func (a *Account) CreateContainer(name string) error {
	if !validContainer(name) {
		return invalidName()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.containers[name] != nil {
		return &failure{http.StatusConflict, "ContainerAlreadyExists", "The specified container already exists."}
	}
	a.containers[name] = &container{blobs: map[string]*Blob{}}
	return nil
}

// DeleteContainer deletes a container by hand, with all that is in it.
func (a *Account) DeleteContainer(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.containers, name)
}

// Put writes a blob by hand, whatever was there.
func (a *Account) Put(container, name string, value []byte) (Blob, error) {
	return a.put(container, name, value, "application/octet-stream", conditions{})
}

// Delete deletes a blob by hand, as DELETE does.
func (a *Account) Delete(container, name string) error {
	return a.remove(container, name, conditions{})
}

// Blob returns one blob.
func (a *Account) Blob(container, name string) (Blob, bool) {
	b, err := a.get(container, name, conditions{})
	return b, err == nil
}

// Blobs returns every blob of a container, in the order of names.
func (a *Account) Blobs(container string) []Blob {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.containers[container]
	if c == nil {
		return nil
	}
	out := make([]Blob, 0, len(c.names))
	for _, name := range c.names {
		out = append(out, c.blobs[name].clone())
	}
	return out
}

func (b *Blob) clone() Blob {
	out := *b
	out.Value = slices.Clone(b.Value)
	return out
}

func (b *Blob) md5() []byte {
	sum := md5.Sum(b.Value)
	return sum[:]
}

func (a *Account) put(in, name string, value []byte, contentType string, when conditions) (Blob, error) {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	c, before, err := a.find(in, name)
	if err == nil {
		err = when.forWrite(before, true)
	}
	if err != nil {
		a.mu.Unlock()
		return Blob{}, err
	}
	now := time.Now().UTC()
	a.writes++
	b := &Blob{Container: in, Name: name, Value: slices.Clone(value), ContentType: contentType,
		ETag: fmt.Sprintf("%q", fmt.Sprintf("0x8D%X%04X", now.UnixMilli(), a.writes)), Created: now, Modified: now}
	if before != nil {
		b.Created = before.Created
	} else {
		at, _ := slices.BinarySearch(c.names, name)
		c.names = slices.Insert(c.names, at, name)
	}
	c.blobs[name] = b
	out := b.clone()
	a.mu.Unlock()
	a.notifyChange(out)
	return out, nil
}

func (a *Account) get(in, name string, when conditions) (Blob, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, b, err := a.find(in, name)
	if err == nil {
		err = when.forRead(b)
	}
	switch {
	case err != nil:
		return Blob{}, err
	case b == nil:
		return Blob{}, noBlob()
	}
	return b.clone(), nil
}

func (a *Account) remove(in, name string, when conditions) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	c, b, err := a.find(in, name)
	if err == nil && (b != nil || a.cfg.ConditionFirst) {
		err = when.forWrite(b, false)
	}
	if err == nil && b == nil {
		err = noBlob()
	}
	if err != nil {
		a.mu.Unlock()
		return err
	}
	delete(c.blobs, name)
	at, _ := slices.BinarySearch(c.names, name)
	c.names = slices.Delete(c.names, at, at+1)
	out := b.clone()
	out.Deleted = true
	a.mu.Unlock()
	a.notifyChange(out)
	return nil
}

func (a *Account) notifyChange(b Blob) {
	if a.cfg.OnChange != nil {
		a.cfg.OnChange(b)
	}
}

// find returns a container and a blob of it, nil if there is none of that name. a.mu
// is held.
func (a *Account) find(in, name string) (*container, *Blob, error) {
	switch {
	case !validContainer(in) || !validBlob(name):
		return nil, nil, invalidName()
	case a.containers[in] == nil:
		return nil, nil, noContainer()
	}
	c := a.containers[in]
	return c, c.blobs[name], nil
}

var containerName = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9]){2,62}$`)

func validContainer(name string) bool { return len(name) <= 63 && containerName.MatchString(name) }

// validBlob holds a name against the service's rules, and against what its
// documentation advises: the service changes a name that ends in a dot or a slash, and
// a client is not to find out that way.
func validBlob(name string) bool {
	segments := strings.Split(name, "/")
	for _, s := range segments {
		if s == "." || s == ".." {
			return false
		}
	}
	fits := name != "" && len(name) <= maxBlobName && len(segments) <= maxSegments
	return fits && !strings.HasSuffix(name, ".") && !strings.HasSuffix(name, "/") && !strings.Contains(name, `\`)
}

func invalidName() *failure {
	return &failure{http.StatusBadRequest, "InvalidResourceName",
		"The specified resource name contains invalid characters."}
}

func noContainer() *failure {
	return &failure{http.StatusNotFound, "ContainerNotFound", "The specified container does not exist."}
}

func noBlob() *failure {
	return &failure{http.StatusNotFound, "BlobNotFound", "The specified blob does not exist."}
}
