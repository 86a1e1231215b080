package blob_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const (
	token     = "good"
	endpoint  = "https://patroltest.blob.core.windows.net"
	container = "patrol-state"
)

func account(t *testing.T, edit func(*blob.Config)) *blob.Account {
	t.Helper()
	c := blob.Config{URL: endpoint, Authority: "https://login.microsoftonline.com", Tenant: "tenant-1",
		Verify: func(sent string) error {
			switch sent {
			case token:
				return nil
			case "no role":
				return fmt.Errorf("here: %w", blob.ErrNoRole)
			}
			return errors.New("another token")
		}}
	if edit != nil {
		edit(&c)
	}
	a, err := blob.New(c, container)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// request is a plain request to the container, complete but for what a test changes.
type request struct {
	method, path string
	header       map[string]string // empty values take a header away
	body         string
}

func (r request) send(a http.Handler) *httptest.ResponseRecorder {
	path := "/" + container + r.path
	if strings.HasPrefix(r.path, "//") {
		path = r.path[1:]
	}
	req := httptest.NewRequest(r.method, path, strings.NewReader(r.body))
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Ms-Version", "2026-12-06")
	if r.method == http.MethodPut {
		req.Header.Set("X-Ms-Blob-Type", "BlockBlob")
	}
	for name, value := range r.header {
		req.Header.Del(name)
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, req)
	return w
}

func TestWhatTheServiceRefusesIsRefused(t *testing.T) {
	header := func(pairs ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i]] = pairs[i+1]
		}
		return out
	}
	const put, get, del, head = http.MethodPut, http.MethodGet, http.MethodDelete, http.MethodHead
	long := "/" + strings.Repeat("a", 1025)
	for name, c := range map[string]struct {
		request
		status int
		code   string
	}{
		"no token": {request{get, "/a", header("Authorization", ""), ""}, 401, "NoAuthenticationInformation"},
		"a bad token": {request{get, "/a", header("Authorization", "Bearer x"), ""}, 401,
			"InvalidAuthenticationInfo"},
		"no role": {request{get, "/a", header("Authorization", "Bearer no role"), ""}, 403,
			"AuthorizationPermissionMismatch"},
		"a key": {request{get, "/a", header("Authorization", "SharedKey a:b"), ""}, 403,
			"KeyBasedAuthenticationNotPermitted"},
		"a shared access signature": {request{get, "/a?sv=2023-11-03&sig=x", header("Authorization", ""), ""}, 403,
			"KeyBasedAuthenticationNotPermitted"},
		"no version": {request{get, "/a", header("X-Ms-Version", ""), ""}, 403, "AuthenticationFailed"},
		"a version before": {request{get, "/a", header("X-Ms-Version", "2017-07-29"), ""}, 403,
			"AuthenticationFailed"},
		"a version to come": {request{get, "/a", header("X-Ms-Version", "2027-01-01"), ""}, 400,
			"InvalidHeaderValue"},
		"a version of no form": {request{get, "/a", header("X-Ms-Version", "newest"), ""}, 400, "InvalidHeaderValue"},

		"no such container": {request{get, "//other/a", nil, ""}, 404, "ContainerNotFound"},
		"a list of no container": {request{get, "//other?restype=container&comp=list", nil, ""}, 404,
			"ContainerNotFound"},
		"a container of no name": {request{get, "//Other/a", nil, ""}, 400, "InvalidResourceName"},
		"two hyphens":            {request{get, "//a--b/a", nil, ""}, 400, "InvalidResourceName"},
		"a list of no name": {request{get, "//a_b?restype=container&comp=list", nil, ""}, 400,
			"InvalidResourceName"},
		"a container made twice": {request{put, "?restype=container", header("X-Ms-Blob-Type", ""), ""}, 409,
			"ContainerAlreadyExists"},
		"a name too long":           {request{put, long, nil, ""}, 400, "InvalidResourceName"},
		"a name of many parts":      {request{put, strings.Repeat("/a", 255), nil, ""}, 400, "InvalidResourceName"},
		"a name that ends in a dot": {request{put, "/a.", nil, ""}, 400, "InvalidResourceName"},
		"a name that ends in a slash": {request{put, "/a/", nil, ""}, 400,
			"InvalidResourceName"},
		"a name with dots for a part": {request{put, "/a/%2e%2e/b", nil, ""}, 400, "InvalidResourceName"},
		"no such blob":                {request{get, "/a", nil, ""}, 404, "BlobNotFound"},
		"no such blob, by HEAD":       {request{head, "/a", nil, ""}, 404, "BlobNotFound"},
		"a deletion of no blob":       {request{del, "/a", nil, ""}, 404, "BlobNotFound"},

		"no type of blob":   {request{put, "/a", header("X-Ms-Blob-Type", ""), ""}, 400, "MissingRequiredHeader"},
		"a wrong type":      {request{put, "/a", header("X-Ms-Blob-Type", "Blob"), ""}, 400, "InvalidHeaderValue"},
		"another type":      {request{put, "/a", header("X-Ms-Blob-Type", "AppendBlob"), ""}, 501, "NotImplemented"},
		"an MD5 of no form": {request{put, "/a", header("Content-MD5", "x"), ""}, 400, "InvalidMd5"},
		"another MD5": {request{put, "/a", header("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="), "a"}, 400,
			"Md5Mismatch"},
		"a CRC of no form": {request{put, "/a", header("X-Ms-Content-Crc64", "x"), ""}, 400, "InvalidHeaderValue"},
		"another CRC":      {request{put, "/a", header("X-Ms-Content-Crc64", crc("b")), "a"}, 400, "Crc64Mismatch"},
		"two checksums": {request{put, "/a", header("X-Ms-Content-Crc64", crc("a"), "Content-MD5", "x"), "a"}, 400,
			"InvalidHeaderValue"},
		"a lease":            {request{put, "/a", header("X-Ms-Lease-Id", "1"), ""}, 501, "NotImplemented"},
		"metadata":           {request{put, "/a", header("X-Ms-Meta-A", "1"), ""}, 501, "NotImplemented"},
		"a tier":             {request{put, "/a", header("X-Ms-Access-Tier", "Hot"), ""}, 501, "NotImplemented"},
		"a type on a read":   {request{get, "/a", header("X-Ms-Blob-Type", "BlockBlob"), ""}, 501, "NotImplemented"},
		"a range":            {request{get, "/a", header("Range", "bytes=0-1"), ""}, 501, "NotImplemented"},
		"a range of its own": {request{get, "/a", header("X-Ms-Range", "bytes=0-1"), ""}, 501, "NotImplemented"},
		"a snapshot":         {request{get, "/a?snapshot=x", nil, ""}, 501, "NotImplemented"},
		"blocks":             {request{put, "/a?comp=block&blockid=x", nil, ""}, 501, "NotImplemented"},
		"a property of the container": {request{get, "?restype=container", nil, ""}, 501,
			"NotImplemented"},
		"a list of containers": {request{get, "//?comp=list", nil, ""}, 501, "NotImplemented"},
		"another method":       {request{http.MethodPatch, "/a", nil, ""}, 501, "NotImplemented"},
		"a list with more": {request{get, "?restype=container&comp=list&include=metadata", nil, ""}, 501,
			"NotImplemented"},
		"a list by folders": {request{get, "?restype=container&comp=list&delimiter=/", nil, ""}, 501,
			"NotImplemented"},
		"a page of nothing": {request{get, "?restype=container&comp=list&maxresults=0", nil, ""}, 400,
			"OutOfRangeQueryParameterValue"},
		"a page of no number": {request{get, "?restype=container&comp=list&maxresults=x", nil, ""}, 400,
			"InvalidQueryParameterValue"},
		"a marker of others": {request{get, "?restype=container&comp=list&marker=x", nil, ""}, 400,
			"InvalidQueryParameterValue"},
		"an ETag without quotes": {request{get, "/a", header("If-Match", "0x1"), ""}, 400, "InvalidHeaderValue"},
		"two ETags": {request{get, "/a", header("If-Match", `"a","b"`), ""}, 400,
			"MultipleConditionHeadersNotSupported"},
		"two conditions": {request{get, "/a", header("If-Match", `"a"`, "If-None-Match", `"b"`), ""}, 400,
			"MultipleConditionHeadersNotSupported"},
		"a date of no form": {request{get, "/a", header("If-Modified-Since", "today"), ""}, 400,
			"InvalidHeaderValue"},
		"a read of what is not":  {request{get, "/a", header("If-Match", `"0x1"`), ""}, 412, "ConditionNotMet"},
		"a read unless anything": {request{get, "/a", header("If-None-Match", "*"), ""}, 400, "UnsatisfiableCondition"},
	} {
		t.Run(name, func(t *testing.T) {
			a := account(t, nil)
			w := c.send(a)
			if w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
			if got := w.Header().Get("X-Ms-Error-Code"); got != c.code {
				t.Errorf("code %q, want %q", got, c.code)
			}
			if c.method == http.MethodHead {
				if w.Body.Len() > 0 {
					t.Error("an answer to HEAD has a body")
				}
				return
			}
			var body struct {
				XMLName       xml.Name `xml:"Error"`
				Code, Message string
			}
			marked, ok := strings.CutPrefix(w.Body.String(), "\ufeff")
			if err := xml.Unmarshal([]byte(marked), &body); err != nil || !ok || body.Code != c.code {
				t.Errorf("the body is %q (%v)", w.Body, err)
			}
			challenge := w.Header().Get("WWW-Authenticate")
			want := "Bearer authorization_uri=https://login.microsoftonline.com/tenant-1/oauth2/authorize " +
				"resource_id=https://storage.azure.com"
			if isChallenged := challenge == want; isChallenged != (c.status == 401) {
				t.Errorf("the challenge is %q", challenge)
			}
			if blobs := a.Blobs(container); len(blobs) > 0 {
				t.Errorf("it was refused and has written %s", blobs[0].Name)
			}
		})
	}
}

func crc(text string) string {
	sum := crc64.Checksum([]byte(text), crc64.MakeTable(0x9A6C9329AC4BC9B5))
	return base64.StdEncoding.EncodeToString(binary.LittleEndian.AppendUint64(nil, sum))
}

func TestABodyWithoutALengthIsRefused(t *testing.T) {
	r := httptest.NewRequest(http.MethodPut, "/"+container+"/a", io.MultiReader(strings.NewReader("a")))
	r.ContentLength = -1
	r.Header = http.Header{"Authorization": {"Bearer " + token}, "X-Ms-Version": {"2023-11-03"},
		"X-Ms-Blob-Type": {"BlockBlob"}}
	w := httptest.NewRecorder()
	account(t, nil).ServeHTTP(w, r)
	if got := w.Header().Get("X-Ms-Error-Code"); w.Code != http.StatusLengthRequired ||
		got != "MissingContentLengthHeader" {
		t.Errorf("status %d, code %q", w.Code, got)
	}
}

func TestConditionsHoldForEveryKindOfRequest(t *testing.T) {
	const old, anything = `"0x1"`, "*"
	for _, c := range []struct {
		method, header, value string
		there                 bool
		status                int
	}{
		{"GET", "If-Match", "current", true, 200}, {"GET", "If-Match", anything, true, 200},
		{"GET", "If-Match", old, true, 412}, {"GET", "If-None-Match", "current", true, 304},
		{"GET", "If-None-Match", old, true, 200}, {"GET", "If-None-Match", old, false, 404},
		{"GET", "If-Modified-Since", "before", true, 200}, {"GET", "If-Modified-Since", "now", true, 304},
		{"GET", "If-Unmodified-Since", "before", true, 412}, {"GET", "If-Unmodified-Since", "now", true, 200},
		{"HEAD", "If-None-Match", "current", true, 304},
		{"PUT", "If-Match", "current", true, 201}, {"PUT", "If-Match", anything, true, 201},
		{"PUT", "If-Match", old, true, 412}, {"PUT", "If-Match", old, false, 412},
		{"PUT", "If-None-Match", anything, true, 409}, {"PUT", "If-None-Match", anything, false, 201},
		{"PUT", "If-None-Match", "current", true, 412}, {"PUT", "If-None-Match", old, true, 201},
		{"PUT", "If-Modified-Since", "before", true, 201}, {"PUT", "If-Modified-Since", "now", true, 412},
		{"PUT", "If-Unmodified-Since", "before", true, 412}, {"PUT", "If-Unmodified-Since", "now", true, 201},
		{"DELETE", "If-Match", "current", true, 202}, {"DELETE", "If-Match", old, true, 412},
		{"DELETE", "If-Match", old, false, 404}, {"DELETE", "If-None-Match", anything, true, 412},
		{"DELETE", "If-Unmodified-Since", "before", true, 412},
	} {
		t.Run(fmt.Sprintf("%s %s %s there=%t", c.method, c.header, c.value, c.there), func(t *testing.T) {
			a := account(t, nil)
			var b blob.Blob
			if c.there {
				var err error
				b, err = a.Put(container, "a", []byte("1"))
				if err != nil {
					t.Fatal(err)
				}
			}
			value := map[string]string{"current": b.ETag, "now": time.Now().UTC().Add(time.Second).
				Format(http.TimeFormat),
				"before": time.Now().UTC().Add(-time.Hour).Format(http.TimeFormat)}[c.value]
			if value == "" {
				value = c.value
			}
			w := request{c.method, "/a", map[string]string{c.header: value}, "2"}.send(a)
			if w.Code != c.status {
				t.Errorf("status %d, want %d (%s)", w.Code, c.status, w.Header().Get("X-Ms-Error-Code"))
			}
			if w.Code == http.StatusNotModified && w.Body.Len() > 0 {
				t.Error("304 has a body")
			}
		})
	}
}

func TestAWriteIsAnsweredWithWhatItCameTo(t *testing.T) {
	a := account(t, nil)
	w := request{http.MethodPut, "/a/b.json", map[string]string{"X-Ms-Blob-Content-Type": "application/json",
		"X-Ms-Content-Crc64": crc("value"), "X-Ms-Client-Request-Id": "mine"}, "value"}.send(a)
	b, ok := a.Blob(container, "a/b.json")
	if w.Code != http.StatusCreated || !ok {
		t.Fatalf("status %d, there: %t", w.Code, ok)
	}
	for name, want := range map[string]string{
		"ETag": b.ETag, "Last-Modified": b.Modified.Format(http.TimeFormat), "Content-MD5": "IGPBYI1uC6+AJJxC4r5YBA==",
		"X-Ms-Content-Crc64": crc("value"), "X-Ms-Request-Server-Encrypted": "true", "X-Ms-Version": "2026-12-06",
		"X-Ms-Client-Request-Id": "mine",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if b.ContentType != "application/json" || string(b.Value) != "value" {
		t.Errorf("the blob is %+v", b)
	}
	if err := a.Delete(container, "a/b.json"); err != nil {
		t.Error(err)
	}
	if _, ok := a.Blob(container, "a/b.json"); ok {
		t.Error("it is there after its deletion")
	}
}

func TestTheTimesAreThoseOfTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := account(t, nil)
		first, err := a.Put(container, "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		second, err := a.Put(container, "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		if !second.Modified.Equal(time.Now()) || !second.Created.Equal(first.Created) {
			t.Errorf("created %s, modified %s; it is %s", second.Created, second.Modified, time.Now())
		}
		if second.ETag == first.ETag {
			t.Error("two writes have one ETag")
		}
	})
}

func TestOnChangeSeesEveryWriteInItsOrder(t *testing.T) {
	var seen []string
	a := account(t, func(c *blob.Config) {
		c.OnChange = func(b blob.Blob) { seen = append(seen, fmt.Sprint(b.Name, " ", string(b.Value), " ", b.Deleted)) }
	})
	request{http.MethodPut, "/a", nil, "1"}.send(a)
	request{http.MethodPut, "/a", map[string]string{"If-None-Match": "*"}, "2"}.send(a)
	request{http.MethodPut, "/a", nil, "3"}.send(a)
	request{http.MethodDelete, "/a", nil, ""}.send(a)
	if want := []string{"a 1 false", "a 3 false", "a 3 true"}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

type credential struct{}

func (credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// The SDK's own client, its checksum included, in virtual time.
func TestTheSDKsClientReadsWhatItWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		panel := &faults.Injector{}
		a := account(t, func(c *blob.Config) { c.Injector = panel })
		l, err := network.Listen("patroltest.blob.core.windows.net:443")
		if err != nil {
			t.Fatal(err)
		}
		server, done := &http.Server{Handler: a}, make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }()
		transport := network.Transport()
		defer func() { transport.CloseIdleConnections(); _ = server.Close(); <-done }()
		client, err := blockblob.NewClient(endpoint+"/"+container+"/a", credential{}, &blockblob.ClientOptions{
			ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: transport}}})
		if err != nil {
			t.Fatal(err)
		}
		body := bytes.Repeat([]byte("value "), 1000)
		// After 503 the SDK sends Expect: 100-continue.
		if err := panel.Inject(faults.Fault{Service: blob.Service, Operation: blob.PutBlob, Mode: faults.Status,
			Status: 503}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Upload(t.Context(), streaming.NopCloser(bytes.NewReader(body)), &blockblob.UploadOptions{
			TransactionalValidation: azblob.TransferValidationTypeComputeCRC64()}); err != nil {
			t.Fatal(err)
		}
		got, err := client.DownloadStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		read, err := io.ReadAll(got.Body)
		if err != nil || !bytes.Equal(read, body) {
			t.Errorf("%d bytes come back (%v), want %d", len(read), err, len(body))
		}
		_ = got.Body.Close()
		properties, err := client.GetProperties(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if *properties.ETag != *got.ETag || *properties.ContentLength != int64(len(body)) {
			t.Errorf("properties %s, %d", *properties.ETag, *properties.ContentLength)
		}
		if _, err := client.Delete(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		for operation, want := range map[string]int{blob.PutBlob: 2, blob.GetBlob: 1, blob.GetBlobProperties: 1,
			blob.DeleteBlob: 1} {
			if n := panel.Count(blob.Service, operation); n != want {
				t.Errorf("%d calls of %s, want %d", n, operation, want)
			}
		}
	})
}

func TestABadConfigurationIsRefused(t *testing.T) {
	good := blob.Config{URL: endpoint, Authority: "https://login", Tenant: "t",
		Verify: func(string) error { return nil }}
	for name, edit := range map[string]func(*blob.Config){
		"no https":   func(c *blob.Config) { c.URL = "http://a" },
		"no URL":     func(c *blob.Config) { c.URL = "" },
		"no tenant":  func(c *blob.Config) { c.Tenant = "" },
		"nobody who": func(c *blob.Config) { c.Verify = nil },
	} {
		c := good
		edit(&c)
		if _, err := blob.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := blob.New(good, "Not-A-Name"); err == nil {
		t.Error("a container of no name: accepted")
	}
	if _, err := blob.New(good, "abc", "abc"); err == nil {
		t.Error("a container twice: accepted")
	}
}
