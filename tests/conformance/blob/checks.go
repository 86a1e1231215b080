package main

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/statestore"
)

// check is one thing that must hold for a storage account.
type check struct {
	name string
	run  func(*fixture) error
}

func checks() []check {
	return []check{
		{"a value comes back as it was written", (*fixture).roundTrip},
		{"each write has an ETag of its own", (*fixture).freshTags},
		{"a write over a blob that must not be there is a conflict", (*fixture).absent},
		{"a write over another content is a conflict", (*fixture).changed},
		{"a write over a blob that is gone is a conflict", (*fixture).gone},
		{"a blob that has not changed is not sent", (*fixture).unchanged},
		{"a blob that is not there is not found", (*fixture).missing},
		{"a deletion holds its condition, and is done once", (*fixture).deletes},
		{"a list has the prefix, the order, and ETags to write by", (*fixture).lists},
		{"a list goes on where its page ended", (*fixture).pages},
		{"a container that is not there is named", (*fixture).otherContainer},
		{"a token for another resource is refused", (*fixture).otherResource},
		{"a record is shared, and an idempotency key is one process's only", (*fixture).records},
		{"properties are those of the content", (*fixture).properties},
		{"a refusal is XML, with its code in a header too", (*fixture).errorForm},
		{"a broken body is refused", (*fixture).brokenBody},
		{"a blob's type must be said", (*fixture).blobType},
		{"an impossible condition is refused", (*fixture).impossible},
		{"a date of the future is no change", (*fixture).dates},
	}
}

const key = "sweeps/last.json"

func (f *fixture) put(value string) (statestore.ETag, error) {
	return f.Put(f.ctx, key, []byte(value), statestore.Whatever)
}

func (f *fixture) roundTrip() error {
	for _, value := range []string{`{"a":"ü"}`, "", strings.Repeat("x", statestore.MaxBytes)} {
		etag, err := f.put(value)
		if err != nil {
			return err
		}
		got, err := f.Get(f.ctx, key)
		switch {
		case err != nil:
			return err
		case string(got.Value) != value:
			return fmt.Errorf("%d bytes come back as %d others", len(value), len(got.Value))
		case got.ETag != etag:
			return fmt.Errorf("ETag %s, and %s after the write", got.ETag, etag)
		case time.Since(got.Modified).Abs() > time.Minute:
			return fmt.Errorf("modified at %s", got.Modified)
		}
	}
	return nil
}

func (f *fixture) freshTags() error {
	var seen []statestore.ETag
	for range 3 {
		etag, err := f.put("same")
		if err != nil {
			return err
		}
		if slices.Contains(seen, etag) {
			return fmt.Errorf("the ETag %s is used twice", etag)
		}
		if len(etag) < 3 || etag[0] != '"' || etag[len(etag)-1] != '"' {
			return fmt.Errorf("the ETag %s has no quotes", etag)
		}
		seen = append(seen, etag)
	}
	return nil
}

func (f *fixture) absent() error {
	if _, err := f.Put(f.ctx, key, []byte("1"), statestore.Unchanged("")); err != nil {
		return err
	}
	_, err := f.Put(f.ctx, key, []byte("2"), statestore.Unchanged(""))
	if err := wantIs("the store", err, statestore.ErrConflict); err != nil {
		return err
	}
	got, err := f.send(http.MethodPut, "/"+key, map[string]string{"X-Ms-Blob-Type": "BlockBlob", "If-None-Match": "*"},
		nil)
	if err != nil {
		return err
	}
	return got.want(http.StatusConflict, "BlobAlreadyExists")
}

func (f *fixture) changed() error {
	old, err := f.put("1")
	if err != nil {
		return err
	}
	current, err := f.Put(f.ctx, key, []byte("2"), statestore.Unchanged(old))
	if err != nil {
		return err
	}
	_, err = f.Put(f.ctx, key, []byte("3"), statestore.Unchanged(old))
	if err := wantIs("the store", err, statestore.ErrConflict); err != nil {
		return err
	}
	got, err := f.Get(f.ctx, key)
	if err != nil || got.ETag != current || string(got.Value) != "2" {
		return fmt.Errorf("the blob is %q with the ETag %s (%v)", got.Value, got.ETag, err)
	}
	raw, err := f.send(http.MethodPut, "/"+key, map[string]string{"X-Ms-Blob-Type": "BlockBlob",
		"If-Match": string(old)}, nil)
	if err != nil {
		return err
	}
	return raw.want(http.StatusPreconditionFailed, "ConditionNotMet")
}

func (f *fixture) gone() error {
	etag, err := f.put("1")
	if err != nil {
		return err
	}
	if err := f.Delete(f.ctx, key, statestore.Whatever); err != nil {
		return err
	}
	_, err = f.Put(f.ctx, key, []byte("2"), statestore.Unchanged(etag))
	return wantIs("the store", err, statestore.ErrConflict)
}

func (f *fixture) unchanged() error {
	etag, err := f.put("1")
	if err != nil {
		return err
	}
	_, err = f.GetUnless(f.ctx, key, etag)
	if err := wantIs("the store", err, statestore.ErrUnchanged); err != nil {
		return err
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		got, err := f.send(method, "/"+key, map[string]string{"If-None-Match": string(etag)}, nil)
		if err != nil {
			return err
		}
		if err := got.want(http.StatusNotModified, "ConditionNotMet"); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
	}
	if _, err := f.put("2"); err != nil {
		return err
	}
	_, err = f.GetUnless(f.ctx, key, etag)
	return err
}

func (f *fixture) missing() error {
	_, err := f.Get(f.ctx, key)
	if err := wantIs("the store", err, statestore.ErrNotFound); err != nil {
		return err
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodDelete} {
		got, err := f.send(method, "/"+key, nil, nil)
		if err != nil {
			return err
		}
		if err := got.want(http.StatusNotFound, "BlobNotFound"); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
	}
	return nil
}

func (f *fixture) deletes() error {
	old, err := f.put("1")
	if err != nil {
		return err
	}
	current, err := f.put("2")
	if err != nil {
		return err
	}
	err = f.Delete(f.ctx, key, statestore.Unchanged(old))
	if err := wantIs("by an old ETag", err, statestore.ErrConflict); err != nil {
		return err
	}
	for range 2 {
		if err := f.Delete(f.ctx, key, statestore.Unchanged(current)); err != nil {
			return err
		}
	}
	_, err = f.Get(f.ctx, key)
	return wantIs("after the deletion", err, statestore.ErrNotFound)
}

func (f *fixture) lists() error {
	for _, key := range []string{"failing/b.json", "failing/a.json", "acts/a.json", "failing/a-b.json"} {
		if _, err := f.Put(f.ctx, key, []byte("{}"), statestore.Whatever); err != nil {
			return err
		}
	}
	entries, more, err := f.List(f.ctx, "failing/")
	if err != nil {
		return err
	}
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.Key)
		if e.Size != 2 || time.Since(e.Modified).Abs() > time.Minute {
			return fmt.Errorf("%s: %d bytes, modified at %s", e.Key, e.Size, e.Modified)
		}
		if _, err := f.Put(f.ctx, e.Key, []byte("[]"), statestore.Unchanged(e.ETag)); err != nil {
			return fmt.Errorf("writing by the list's ETag: %w", err)
		}
	}
	want := []string{"failing/a-b.json", "failing/a.json", "failing/b.json"}
	if more || !slices.Equal(keys, want) {
		return fmt.Errorf("the list is %q (more: %t), want %q", keys, more, want)
	}
	none, more, err := f.List(f.ctx, "told/")
	if err != nil || more || len(none) > 0 {
		return fmt.Errorf("a list of nothing: %v, %t, %v", none, more, err)
	}
	return nil
}

// listPage is what the service says of a page.
type listPage struct {
	Names []string `xml:"Blobs>Blob>Name"`
	Tags  []string `xml:"Blobs>Blob>Properties>Etag"`
	Next  string   `xml:"NextMarker"`
}

func (f *fixture) pages() error {
	for i := range 5 {
		if _, err := f.Put(f.ctx, fmt.Sprintf("told/%d.json", i), nil, statestore.Whatever); err != nil {
			return err
		}
	}
	var sizes []int
	const list = "?restype=container&comp=list"
	for marker := ""; len(sizes) < 5; {
		got, err := f.send(http.MethodGet, list+"&prefix=told/&maxresults=2&marker="+marker, nil, nil)
		if err != nil {
			return err
		}
		if err := got.want(http.StatusOK, ""); err != nil {
			return err
		}
		var p listPage
		if err := xml.Unmarshal(bytes.TrimPrefix(got.body, []byte("\ufeff")), &p); err != nil {
			return err
		}
		for _, tag := range p.Tags {
			if strings.Contains(tag, `"`) {
				return fmt.Errorf("the ETag %s of a list has quotes", tag)
			}
		}
		sizes = append(sizes, len(p.Names))
		marker = p.Next
		if marker == "" {
			break
		}
	}
	if want := []int{2, 2, 1}; !slices.Equal(sizes, want) {
		return fmt.Errorf("pages of %v, want %v", sizes, want)
	}
	got, err := f.send(http.MethodGet, list+"&maxresults=0", nil, nil)
	if err != nil {
		return err
	}
	return got.wantStatus(http.StatusBadRequest) // Azurite gives no code
}

func (f *fixture) otherContainer() error {
	s, err := f.store("not-there", audience)
	if err != nil {
		return err
	}
	_, getErr := s.Get(f.ctx, key)
	_, putErr := s.Put(f.ctx, key, nil, statestore.Whatever)
	_, _, listErr := s.List(f.ctx, "failing/")
	for _, err := range []error{getErr, putErr, s.Delete(f.ctx, key, statestore.Whatever), listErr} {
		if err := wantCode(err, "state-container"); err != nil {
			return err
		}
	}
	return nil
}

func (f *fixture) otherResource() error {
	s, err := f.store(f.container, "https://vault.azure.net")
	if err != nil {
		return err
	}
	_, err = s.Get(f.ctx, key)
	return wantCode(err, "state-unauthorized")
}

func (f *fixture) records() error {
	at := time.Now().UTC().Truncate(time.Second)
	if _, err := f.PutLastSweep(f.ctx, statestore.LastSweep{At: at, By: "timer"}, statestore.Whatever); err != nil {
		return err
	}
	sweep, _, err := f.LastSweep(f.ctx)
	if err != nil || !sweep.At.Equal(at) || sweep.By != "timer" {
		return fmt.Errorf("the sweep comes back as %+v (%v)", sweep, err)
	}
	for _, pat := range []string{"b", "a"} {
		if _, err := f.PutFailing(f.ctx, statestore.Failing{PAT: pat, At: at}, statestore.Whatever); err != nil {
			return err
		}
	}
	all, complete, err := f.AllFailing(f.ctx)
	isBoth := len(all) == 2 && all[0].PAT == "a"
	if err != nil || !complete || !isBoth {
		return fmt.Errorf("what fails is %+v (complete: %t, %v)", all, complete, err)
	}
	act := statestore.Act{Key: "ada\nkey", Operation: "op", Process: "p-1", Expires: at.Add(time.Hour)}
	first, err := f.ClaimAct(f.ctx, act)
	if err != nil || !first.Ours {
		return fmt.Errorf("the key is not the first one's: %v", err)
	}
	act.Process = "p-2"
	second, err := f.ClaimAct(f.ctx, act)
	if err != nil || second.Ours || second.Act.Process != "p-1" {
		return fmt.Errorf("the key is the second one's as well: %v", err)
	}
	n, err := f.PruneActs(f.ctx, at.Add(2*time.Hour))
	if err != nil || n != 1 {
		return fmt.Errorf("%d acts are pruned: %v", n, err)
	}
	return nil
}

func (f *fixture) properties() error {
	etag, err := f.put("12345")
	if err != nil {
		return err
	}
	sum := md5.Sum([]byte("12345"))
	want := map[string]string{"Etag": string(etag), "Content-Length": "5", "Content-Type": "application/json",
		"Content-Md5": base64.StdEncoding.EncodeToString(sum[:]), "X-Ms-Blob-Type": "BlockBlob",
		"X-Ms-Lease-State": "available", "X-Ms-Lease-Status": "unlocked", "Accept-Ranges": "bytes"}
	for _, method := range []string{http.MethodHead, http.MethodGet} {
		got, err := f.send(method, "/"+key, nil, nil)
		if err != nil {
			return err
		}
		if err := got.want(http.StatusOK, ""); err != nil {
			return err
		}
		for name, value := range want {
			if got.header.Get(name) != value {
				return fmt.Errorf("%s: %s is %q, want %q", method, name, got.header.Get(name), value)
			}
		}
		if got.header.Get("X-Ms-Request-Id") == "" {
			return fmt.Errorf("%s: the answer has no request id", method)
		}
	}
	return nil
}

func (f *fixture) errorForm() error {
	got, err := f.send(http.MethodGet, "/"+key, nil, nil)
	if err != nil {
		return err
	}
	var body struct {
		XMLName       xml.Name `xml:"Error"`
		Code, Message string
	}
	if err := xml.Unmarshal(bytes.TrimPrefix(got.body, []byte("\ufeff")), &body); err != nil {
		return err
	}
	if kind := got.header.Get("Content-Type"); !strings.HasPrefix(kind, "application/xml") || body.Message == "" {
		return fmt.Errorf("the body is of type %q", kind)
	}
	head, err := f.send(http.MethodHead, "/"+key, nil, nil)
	if err != nil {
		return err
	}
	if len(head.body) > 0 {
		return errors.New("an answer to HEAD has a body")
	}
	return head.want(http.StatusNotFound, "BlobNotFound")
}

func (f *fixture) brokenBody() error {
	sum := md5.Sum([]byte("another body"))
	header := map[string]string{"X-Ms-Blob-Type": "BlockBlob",
		"Content-MD5": base64.StdEncoding.EncodeToString(sum[:])}
	got, err := f.send(http.MethodPut, "/"+key, header, []byte("a body"))
	if err != nil {
		return err
	}
	if err := got.wantStatus(http.StatusBadRequest); err != nil { // Azurite has another code
		return err
	}
	sum = md5.Sum([]byte("a body"))
	header["Content-MD5"] = base64.StdEncoding.EncodeToString(sum[:])
	got, err = f.send(http.MethodPut, "/"+key, header, []byte("a body"))
	if err != nil {
		return err
	}
	if answered := got.header.Get("Content-MD5"); answered != header["Content-MD5"] {
		return fmt.Errorf("the answer's Content-MD5 is %q", answered)
	}
	return got.want(http.StatusCreated, "")
}

func (f *fixture) blobType() error {
	got, err := f.send(http.MethodPut, "/"+key, nil, []byte("a body"))
	if err != nil {
		return err
	}
	return got.wantStatus(http.StatusBadRequest) // Azurite gives no code
}

func (f *fixture) impossible() error {
	if _, err := f.put("1"); err != nil {
		return err
	}
	got, err := f.send(http.MethodGet, "/"+key, map[string]string{"If-None-Match": "*"}, nil)
	if err != nil {
		return err
	}
	return got.want(http.StatusBadRequest, "UnsatisfiableCondition")
}

func (f *fixture) dates() error {
	if _, err := f.put("1"); err != nil {
		return err
	}
	later, sooner := time.Now().Add(time.Hour).UTC(), time.Now().Add(-time.Hour).UTC()
	for _, c := range []struct {
		method, header string
		at             time.Time
		status         int
		code           string
	}{
		{http.MethodGet, "If-Modified-Since", later, http.StatusNotModified, "ConditionNotMet"},
		{http.MethodGet, "If-Modified-Since", sooner, http.StatusOK, ""},
		{http.MethodGet, "If-Unmodified-Since", sooner, http.StatusPreconditionFailed, "ConditionNotMet"},
		{http.MethodGet, "If-Unmodified-Since", later, http.StatusOK, ""},
		{http.MethodPut, "If-Unmodified-Since", sooner, http.StatusPreconditionFailed, "ConditionNotMet"},
		{http.MethodPut, "If-Modified-Since", later, http.StatusPreconditionFailed, "ConditionNotMet"},
		{http.MethodDelete, "If-Unmodified-Since", sooner, http.StatusPreconditionFailed, "ConditionNotMet"},
	} {
		got, err := f.send(c.method, "/"+key, map[string]string{c.header: c.at.Format(http.TimeFormat),
			"X-Ms-Blob-Type": map[bool]string{true: "BlockBlob"}[c.method == http.MethodPut]}, nil)
		if err != nil {
			return err
		}
		if err := got.want(c.status, c.code); err != nil {
			return fmt.Errorf("%s, %s %s: %w", c.method, c.header, c.at.Format(time.TimeOnly), err)
		}
	}
	return nil
}
