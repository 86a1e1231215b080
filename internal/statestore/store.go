// Package statestore keeps what one process of the app has to know of the others, as
// small JSON blobs of one container: the last sweep, what fails, what was published
// and when, the answers to requests with an idempotency key.
//
// The host runs the functions of one app in several processes, and ends each when it
// rests. What is here is for showing and for waiting: it is best effort, no PAT is
// ended because of it, and whoever cannot read it says "not known" instead of "none".
//
// No secret is ever put here. The types hold plain facts: names, times, codes, messages
// that patrol itself has made. A value of type rotation.Secret in one of them would be
// stored as "[redacted]".
//
// It must not know what follows from a fact, nor who asks. Time, transport and
// credential come from outside.
package statestore

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Nothing waits long for the state: two attempts, and a pause between them.
const (
	tryTimeout    = 5 * time.Second
	retries       = 1
	retryDelay    = 250 * time.Millisecond
	maxRetryDelay = time.Second
	callLimit     = 2*tryTimeout + maxRetryDelay
)

const (
	// MaxBytes is how much a blob may hold unless Config says otherwise.
	MaxBytes = 64 << 10
	// MaxListed is how many blobs a list has at most.
	MaxListed = 1000
	// maxPages bounds a list of pages that hold nothing.
	maxPages = 10
)

var (
	// ErrOff: there is no state store. It is what a nil *Store answers.
	ErrOff error = &rotation.Error{Class: rotation.Configuration, Code: rotation.StateOff, Service: rotation.Storage,
		Message: "there is no state store: set STATE_URL to the address of a blob container"}
	// ErrNotFound: there is no such blob.
	ErrNotFound = errors.New("there is no such blob")
	// ErrConflict: somebody else has written the blob since, and nothing was done.
	ErrConflict = errors.New("the blob has changed")
	// ErrUnchanged: the blob is the one that the caller has.
	ErrUnchanged = errors.New("the blob has not changed")
)

// ETag names one content of a blob; empty: there is no blob.
type ETag string

// Condition says when a write may take effect. The zero value: whatever is there.
type Condition struct {
	set  bool
	etag ETag
}

// Whatever puts no condition on a write.
var Whatever = Condition{}

// Unchanged lets a write take effect if the blob is still the one that etag names. An
// empty one means that there is still no blob.
func Unchanged(etag ETag) Condition { return Condition{set: true, etag: etag} }

func (c Condition) headers() *blob.AccessConditions {
	if !c.set {
		return nil
	}
	headers := &blob.ModifiedAccessConditions{}
	if etag := azcore.ETag(c.etag); etag == "" {
		headers.IfNoneMatch = new(azcore.ETagAny)
	} else {
		headers.IfMatch = &etag
	}
	return &blob.AccessConditions{ModifiedAccessConditions: headers}
}

// Config says which container, as whom, over what.
type Config struct {
	// URL is the container's address, https://<account>.blob.core.windows.net/<name>;
	// nil: there is no store.
	URL *url.URL
	// Credential gets tokens for Azure Storage.
	Credential azcore.TokenCredential
	// ClientOptions holds the transport and the retries; zero values mean two attempts of
	// 5 s. Bodies are never logged, whatever it says.
	ClientOptions azcore.ClientOptions
	// Setting is the app setting that URL comes from, for messages; empty: STATE_URL.
	Setting string
	// MaxBytes is how much a blob may hold; 0: MaxBytes.
	MaxBytes int
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Store is a container. It is safe for concurrent use, and nil is a store that is off.
type Store struct {
	container  string // URL without a slash at its end
	credential azcore.TokenCredential
	options    azcore.ClientOptions
	setting    string
	maxBytes   int
	now        func() time.Time
}

// New prepares the client; it calls nobody. Without a URL the store is nil.
func New(c Config) (*Store, error) {
	if c.URL == nil {
		return nil, nil
	}
	s := &Store{credential: c.Credential, options: c.ClientOptions, setting: c.Setting, maxBytes: c.MaxBytes,
		now: c.Now}
	if s.setting == "" {
		s.setting = "STATE_URL"
	}
	if s.maxBytes == 0 {
		s.maxBytes = MaxBytes
	}
	if s.now == nil {
		s.now = time.Now
	}
	if !isContainer(c.URL) {
		return nil, configuration("state-url", "the address of the state must be of the form "+
			"https://<account>.blob.core.windows.net/<container>: set %s", s.setting)
	}
	if c.Credential == nil {
		return nil, configuration("state-credential", "there is no credential for the storage account")
	}
	s.credential = &sharedToken{credential: c.Credential, now: s.now}
	s.container = "https://" + c.URL.Host + "/" + strings.Trim(c.URL.Path, "/")
	o := &s.options
	if o.Retry.TryTimeout == 0 {
		o.Retry.TryTimeout = tryTimeout
	}
	if o.Retry.MaxRetries == 0 {
		o.Retry.MaxRetries = retries
	}
	if o.Retry.RetryDelay == 0 {
		o.Retry.RetryDelay = retryDelay
	}
	if o.Retry.MaxRetryDelay == 0 {
		o.Retry.MaxRetryDelay = maxRetryDelay
	}
	o.Logging.IncludeBody = false
	o.PerRetryPolicies = append(slices.Clone(o.PerRetryPolicies), attemptCounter{})
	return s, nil
}

// audience is Azure Storage's, in every cloud.
const audience = "https://storage.azure.com"

var (
	containerName = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9]){2,62}$`)
	keyForm       = regexp.MustCompile(`^[a-z0-9][0-9A-Za-z._-]{0,200}(/[0-9A-Za-z][0-9A-Za-z._-]{0,200}){0,3}$`)
	prefixForm    = regexp.MustCompile(`^[a-z0-9][0-9A-Za-z._/-]{0,200}$`)
)

// isContainer reports whether an address is a container's and nothing else.
func isContainer(u *url.URL) bool {
	bare := u.User == nil && u.RawQuery == "" && u.Fragment == ""
	name := strings.Trim(u.Path, "/")
	return bare && u.Scheme == "https" && u.Hostname() != "" && len(name) <= 63 && containerName.MatchString(name)
}

func checkKey(doing, key string) error {
	if !keyForm.MatchString(key) || strings.HasSuffix(key, ".") {
		return configuration("state-key", "%s: a blob's name is of letters, digits, dots, hyphens and slashes", doing)
	}
	return nil
}

// Blob is a blob's content.
type Blob struct {
	Value    []byte
	ETag     ETag
	Modified time.Time
}

// Get reads a blob; ErrNotFound if there is none.
func (s *Store) Get(ctx context.Context, key string) (Blob, error) { return s.GetUnless(ctx, key, "") }

// GetUnless reads a blob unless it is the one that the caller has, by its ETag; then
// it answers ErrUnchanged.
func (s *Store) GetUnless(ctx context.Context, key string, known ETag) (Blob, error) {
	if s == nil {
		return Blob{}, ErrOff
	}
	doing := "reading the state " + key
	client, err := s.client(doing, key)
	if err != nil {
		return Blob{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	o := &blob.DownloadStreamOptions{}
	if etag := azcore.ETag(known); etag != "" {
		o.AccessConditions = &blob.AccessConditions{
			ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: &etag}}
	}
	got, err := client.DownloadStream(ctx, o)
	if err != nil {
		return Blob{}, s.failure(doing, err)
	}
	if got.Body == nil { // the SDK takes 304 for a success, and gives nothing else
		return Blob{}, fmt.Errorf("%s: %w", doing, ErrUnchanged)
	}
	defer got.Body.Close()
	value, err := io.ReadAll(io.LimitReader(got.Body, int64(s.maxBytes)+1))
	switch {
	case err != nil:
		return Blob{}, s.failure(doing, err)
	case len(value) > s.maxBytes:
		return Blob{}, s.tooLarge(doing)
	case got.ETag == nil || *got.ETag == "":
		return Blob{}, unreadable(doing)
	}
	out := Blob{Value: value, ETag: ETag(*got.ETag)}
	if got.LastModified != nil {
		out.Modified = got.LastModified.UTC()
	}
	return out, nil
}

func (s *Store) tooLarge(doing string) error {
	return configuration("state-size", "%s: a blob of the state has at most %d bytes: "+
		"delete it if patrol has not written it", doing, s.maxBytes)
}

// Put writes a blob, ErrConflict if its condition does not hold. Where an answer was
// lost and the second attempt finds the first one's work, that is found out: it is no
// conflict.
func (s *Store) Put(ctx context.Context, key string, value []byte, when Condition) (ETag, error) {
	if s == nil {
		return "", ErrOff
	}
	doing := "writing the state " + key
	if len(value) > s.maxBytes {
		return "", s.tooLarge(doing)
	}
	client, err := s.client(doing, key)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	var sent attempts
	contentType := "application/json"
	got, err := client.Upload(context.WithValue(ctx, attemptsKey{}, &sent), streaming.NopCloser(bytes.NewReader(value)),
		&blockblob.UploadOptions{AccessConditions: when.headers(),
			HTTPHeaders: &blob.HTTPHeaders{BlobContentType: &contentType}})
	if err != nil {
		err = s.failure(doing, err)
		if errors.Is(err, ErrConflict) && sent.Load() > 0 {
			if there, readErr := s.Get(ctx, key); readErr == nil && bytes.Equal(there.Value, value) {
				return there.ETag, nil
			}
		}
		return "", err
	}
	if got.ETag == nil || *got.ETag == "" {
		return "", unreadable(doing)
	}
	return ETag(*got.ETag), nil
}

// Delete deletes a blob; one that is not there is deleted, whatever the condition. An
// account may look at the condition first, so a conflict is held against what is there.
func (s *Store) Delete(ctx context.Context, key string, when Condition) error {
	if s == nil {
		return ErrOff
	}
	doing := "deleting the state " + key
	client, err := s.client(doing, key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	_, err = client.Delete(ctx, &blob.DeleteOptions{AccessConditions: when.headers()})
	err = s.failure(doing, err)
	if errors.Is(err, ErrConflict) {
		if _, readErr := s.Get(ctx, key); errors.Is(readErr, ErrNotFound) {
			return nil
		}
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// client is a blob's. It costs no call: the store remembers its token.
func (s *Store) client(doing, key string) (*blockblob.Client, error) {
	if err := checkKey(doing, key); err != nil {
		return nil, err
	}
	client, err := blockblob.NewClient(s.container+"/"+key, s.credential,
		&blockblob.ClientOptions{ClientOptions: s.options})
	if err != nil {
		return nil, configuration("state-client", "%s: the client could not be made: check the cloud", doing)
	}
	return client, nil
}

// Entry is a blob in a list.
type Entry struct {
	Key      string
	ETag     ETag
	Modified time.Time
	Size     int64
}

// List lists the blobs whose names begin with prefix, in the order of names, at most
// MaxListed of them; more says that there are others.
func (s *Store) List(ctx context.Context, prefix string) (entries []Entry, more bool, err error) {
	if s == nil {
		return nil, false, ErrOff
	}
	doing := "listing the state " + prefix
	if !prefixForm.MatchString(prefix) {
		return nil, false, configuration("state-key", "%s: such names are not used", doing)
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	lists, err := s.lists()
	if err != nil {
		return nil, false, configuration("state-client", "%s: the client could not be made: check the cloud", doing)
	}
	marker := ""
	for range maxPages {
		page, err := s.page(ctx, lists, prefix, marker)
		if err != nil {
			return nil, false, s.failure(doing, err)
		}
		for _, b := range page.Blobs {
			if !strings.HasPrefix(b.Name, prefix) || b.ETag == "" {
				return nil, false, unreadable(doing)
			}
			if len(entries) == MaxListed {
				return entries, true, nil
			}
			entries = append(entries, b.entry())
		}
		if page.Next == "" {
			return entries, false, nil
		}
		marker = page.Next
	}
	return entries, true, nil
}

// listVersion is the version of the service's API in which it is asked for a list.
const listVersion = "2023-11-03"

// listPage is what is read of a page.
type listPage struct {
	Blobs []listed `xml:"Blobs>Blob"`
	Next  string   `xml:"NextMarker"`
}

type listed struct {
	Name     string
	ETag     string `xml:"Properties>Etag"`
	Modified string `xml:"Properties>Last-Modified"`
	Size     int64  `xml:"Properties>Content-Length"`
}

// In a list an ETag has no quotes, everywhere else they are part of it.
func (l listed) entry() Entry {
	e := Entry{Key: l.Name, ETag: ETag(`"` + strings.Trim(l.ETag, `"`) + `"`), Size: l.Size}
	if at, err := http.ParseTime(l.Modified); err == nil {
		e.Modified = at.UTC()
	}
	return e
}

// lists makes the client for one list. Like a blob's, it does not outlive the call: a
// client that remembers its token uses it up to the last moment while another call
// fetches a new one.
func (s *Store) lists() (*azcore.Client, error) {
	return azcore.NewClient("github.com/azure-patrol/patrol/internal/statestore", "v1.0.0",
		runtime.PipelineOptions{PerRetry: []policy.Policy{
			runtime.NewBearerTokenPolicy(s.credential, []string{audience + "/.default"}, nil)}}, &s.options)
}

// page asks for one page. The SDK's own client for containers does the same, and brings
// a quarter of the handler's size along: docs/adr/0016.
func (s *Store) page(ctx context.Context, lists *azcore.Client, prefix, marker string) (p listPage, err error) {
	req, err := runtime.NewRequest(ctx, http.MethodGet, s.container)
	if err != nil {
		return p, err
	}
	q := url.Values{"restype": {"container"}, "comp": {"list"}, "prefix": {prefix},
		"maxresults": {strconv.Itoa(MaxListed)}}
	if marker != "" {
		q.Set("marker", marker)
	}
	req.Raw().URL.RawQuery = q.Encode()
	req.Raw().Header.Set("X-Ms-Version", listVersion)
	req.Raw().Header.Set("Accept", "application/xml")
	resp, err := lists.Pipeline().Do(req)
	if err != nil {
		return p, err
	}
	if !runtime.HasStatusCode(resp, http.StatusOK) {
		return p, runtime.NewResponseError(resp)
	}
	body, err := runtime.Payload(resp)
	if err != nil {
		return p, err
	}
	return readPage(body)
}

func readPage(body []byte) (p listPage, err error) {
	if err := xml.Unmarshal(bytes.TrimPrefix(body, []byte("\ufeff")), &p); err != nil {
		return listPage{}, errNoPage
	}
	return p, nil
}
