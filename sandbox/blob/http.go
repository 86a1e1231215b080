package blob

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Versions of the API. The first is the oldest that takes a bearer token.
const (
	oldestVersion = "2017-11-09"
	newestVersion = "2026-12-06"
)

var versionForm = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)

// failure is an answer that is not a success.
type failure struct {
	status  int
	code    string
	message string
}

func (f *failure) Error() string { return f.code + ": " + f.message }

func badHeader(name string) *failure {
	return &failure{http.StatusBadRequest, "InvalidHeaderValue",
		"The value for one of the HTTP headers is not in the correct format: " + name + "."}
}

func badQuery(name string) *failure {
	return &failure{http.StatusBadRequest, "InvalidQueryParameterValue",
		"Value for one of the query parameters specified in the request URI is invalid: " + name + "."}
}

// notHere is for what the service has and the sandbox has not.
func notHere(what string) *failure {
	return &failure{http.StatusNotImplemented, "NotImplemented", "The sandbox does not know " + what + "."}
}

// byteOrderMark stands before every XML document of the service.
const byteOrderMark = "\ufeff"

// ErrorBody is the body of an error answer, for faults that look like the service's
// own. Its code belongs into the header x-ms-error-code too.
func ErrorBody(code, message string) string {
	b, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: message})
	if err != nil {
		panic(err) // strings always marshal
	}
	return byteOrderMark + xml.Header[:len(xml.Header)-1] + string(b)
}

// request is a request's operation with its parts.
type request struct {
	operation       string
	container, blob string
}

// route names the operation of a request and takes its path apart.
func route(r *http.Request) request {
	in, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	out := request{Unknown, in, name}
	kind := r.Method
	if name == "" {
		kind += " " + q.Get("restype") + " " + q.Get("comp")
	} else if q.Has("comp") || q.Has("restype") {
		return out
	}
	known := map[string]string{
		"PUT container ":     CreateContainer,
		"GET container list": ListBlobs,
		"PUT":                PutBlob, "GET": GetBlob, "HEAD": GetBlobProperties, "DELETE": DeleteBlob,
	}
	if operation, ok := known[kind]; ok && in != "" {
		out.operation = operation
	}
	return out
}

func (a *Account) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.requests++
	n := a.requests
	a.mu.Unlock()
	id := fmt.Sprintf("00000000-b10b-4000-8000-%012x", n)
	h := w.Header()
	h.Set("X-Ms-Request-Id", id)
	h.Set("Server", "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if v := r.Header.Get("X-Ms-Version"); versionForm.MatchString(v) {
		h.Set("X-Ms-Version", v)
	}
	if v := r.Header.Get("X-Ms-Client-Request-Id"); v != "" && len(v) <= 1024 {
		h.Set("X-Ms-Client-Request-Id", v)
	}
	err := a.answer(w, r)
	if err == nil {
		return
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{http.StatusInternalServerError, "InternalError", "The server encountered an internal error."}
	}
	h.Set("X-Ms-Error-Code", f.code)
	if f.status == http.StatusNotModified || r.Method == http.MethodHead {
		w.WriteHeader(f.status)
		return
	}
	h.Set("Content-Type", "application/xml")
	w.WriteHeader(f.status)
	_, _ = io.WriteString(w, ErrorBody(f.code, fmt.Sprintf("%s\nRequestId:%s\nTime:%s", f.message, id,
		time.Now().UTC().Format("2006-01-02T15:04:05.0000000Z"))))
}

func (a *Account) answer(w http.ResponseWriter, r *http.Request) error {
	if err := a.authorize(w, r); err != nil {
		return err
	}
	asked := route(r)
	if asked.operation == Unknown {
		return notHere(r.Method + " of this resource, or its comp or restype")
	}
	if err := checkKnown(r, asked.operation); err != nil {
		return err
	}
	when, err := readConditions(r.Header)
	if err != nil {
		return err
	}
	switch asked.operation {
	case CreateContainer:
		if err := a.CreateContainer(asked.container); err != nil {
			return err
		}
		w.WriteHeader(http.StatusCreated)
		return nil
	case ListBlobs:
		return a.list(w, r, asked.container)
	case PutBlob:
		return a.putBlob(w, r, asked, when)
	case DeleteBlob:
		if err := a.remove(asked.container, asked.blob, when); err != nil {
			return err
		}
		w.Header().Set("X-Ms-Delete-Type-Permanent", "true")
		w.WriteHeader(http.StatusAccepted)
		return nil
	default: // GetBlob, GetBlobProperties
		return a.getBlob(w, r, asked, when)
	}
}

// authorize checks who asks, and in which version of the API.
func (a *Account) authorize(w http.ResponseWriter, r *http.Request) error {
	version := r.Header.Get("X-Ms-Version")
	authorization := r.Header.Get("Authorization")
	token, isBearer := strings.CutPrefix(authorization, "Bearer ")
	challenge := func() {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(
			"Bearer authorization_uri=%s/%s/oauth2/authorize resource_id=https://storage.azure.com",
			a.cfg.Authority, a.cfg.Tenant))
	}
	switch {
	case version != "" && !versionForm.MatchString(version), version > newestVersion:
		return badHeader("x-ms-version")
	case authorization == "" && r.URL.Query().Has("sig"), authorization != "" && !isBearer:
		return &failure{http.StatusForbidden, "KeyBasedAuthenticationNotPermitted",
			"Key based authentication is not permitted on this storage account."}
	case authorization == "":
		challenge()
		return &failure{http.StatusUnauthorized, "NoAuthenticationInformation", "Server failed to authenticate the " +
			"request. Please refer to the information in the www-authenticate header."}
	case version < oldestVersion: // without a version, the request is of an old one
		return &failure{http.StatusForbidden, "AuthenticationFailed",
			"Authentication scheme Bearer is not supported in this version."}
	}
	err := a.cfg.Verify(token)
	switch {
	case errors.Is(err, ErrNoRole):
		return &failure{http.StatusForbidden, "AuthorizationPermissionMismatch",
			"This request is not authorized to perform this operation using this permission."}
	case err != nil:
		challenge()
		return &failure{http.StatusUnauthorized, "InvalidAuthenticationInfo", "Server failed to authenticate the " +
			"request. Please refer to the information in the www-authenticate header."}
	}
	return nil
}

// Headers and parameters that the sandbox knows. Conditions are for blobs only.
var (
	knownHeaders = []string{"X-Ms-Version", "X-Ms-Date", "X-Ms-Client-Request-Id"}
	putHeaders   = []string{"X-Ms-Blob-Type", "X-Ms-Blob-Content-Type", "X-Ms-Content-Crc64"}
	listQueries  = []string{"restype", "comp", "prefix", "marker", "maxresults", "timeout"}
)

// checkKnown refuses headers and parameters that would change what is meant.
func checkKnown(r *http.Request, operation string) error {
	for name := range r.Header {
		if !strings.HasPrefix(name, "X-Ms-") || slices.Contains(knownHeaders, name) {
			continue
		}
		if operation != PutBlob || !slices.Contains(putHeaders, name) {
			return notHere("the header " + strings.ToLower(name))
		}
	}
	if r.Header.Get("Range") != "" {
		return notHere("the header range")
	}
	for name := range r.URL.Query() {
		known := name == "timeout" || operation == CreateContainer && name == "restype"
		if !known && (operation != ListBlobs || !slices.Contains(listQueries, name)) {
			return notHere("the parameter " + name)
		}
	}
	return nil
}

// table is of the polynomial that the service uses.
var table = crc64.MakeTable(0x9A6C9329AC4BC9B5)

func (a *Account) putBlob(w http.ResponseWriter, r *http.Request, asked request, when conditions) error {
	switch kind := r.Header.Get("X-Ms-Blob-Type"); kind {
	case "BlockBlob":
	case "":
		return &failure{http.StatusBadRequest, "MissingRequiredHeader",
			"An HTTP header that's mandatory for this request is not specified: x-ms-blob-type."}
	case "PageBlob", "AppendBlob":
		return notHere("blobs of type " + kind)
	default:
		return badHeader("x-ms-blob-type")
	}
	switch {
	case r.ContentLength < 0:
		return &failure{http.StatusLengthRequired, "MissingContentLengthHeader", "Content-Length header is missing."}
	case r.ContentLength > maxBody:
		return &failure{http.StatusRequestEntityTooLarge, "RequestBodyTooLarge",
			"The request body is too large and exceeds the maximum permissible limit."}
	}
	value, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || int64(len(value)) != r.ContentLength {
		return &failure{http.StatusBadRequest, "InvalidInput", "One of the request inputs is not valid."}
	}
	if err := checkSums(r.Header, value); err != nil {
		return err
	}
	contentType := r.Header.Get("X-Ms-Blob-Content-Type")
	if contentType == "" {
		contentType = r.Header.Get("Content-Type")
	}
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	b, err := a.put(asked.container, asked.blob, value, contentType, when)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("ETag", b.ETag)
	h.Set("Last-Modified", b.Modified.Format(http.TimeFormat))
	h.Set("Content-MD5", base64.StdEncoding.EncodeToString(b.md5()))
	h.Set("X-Ms-Content-Crc64", base64.StdEncoding.EncodeToString(sum64(value)))
	h.Set("X-Ms-Request-Server-Encrypted", "true")
	w.WriteHeader(http.StatusCreated)
	return nil
}

func sum64(value []byte) []byte {
	return binary.LittleEndian.AppendUint64(nil, crc64.Checksum(value, table))
}

// checkSums holds a body against the checksum that came with it.
func checkSums(h http.Header, value []byte) error {
	sentMD5, sentCRC := h.Get("Content-Md5"), h.Get("X-Ms-Content-Crc64")
	if sentMD5 != "" && sentCRC != "" {
		return badHeader("x-ms-content-crc64")
	}
	if sentMD5 != "" {
		got, err := base64.StdEncoding.DecodeString(sentMD5)
		if err != nil || len(got) != md5.Size {
			return &failure{http.StatusBadRequest, "InvalidMd5", "The MD5 value specified in the request is invalid."}
		}
		if sum := md5.Sum(value); !bytes.Equal(got, sum[:]) {
			return &failure{http.StatusBadRequest, "Md5Mismatch",
				"The MD5 value specified in the request did not match with the MD5 value calculated by the server."}
		}
	}
	if sentCRC != "" {
		got, err := base64.StdEncoding.DecodeString(sentCRC)
		if err != nil || len(got) != 8 {
			return badHeader("x-ms-content-crc64")
		}
		if !bytes.Equal(got, sum64(value)) {
			return &failure{http.StatusBadRequest, "Crc64Mismatch",
				"The CRC64 value specified in the request did not match with the CRC64 value calculated by the server."}
		}
	}
	return nil
}

func (a *Account) getBlob(w http.ResponseWriter, r *http.Request, asked request, when conditions) error {
	b, err := a.get(asked.container, asked.blob, when)
	if err != nil {
		return err
	}
	h := w.Header()
	for name, value := range map[string]string{
		"ETag": b.ETag, "Last-Modified": b.Modified.Format(http.TimeFormat), "Content-Type": b.ContentType,
		"Content-Length": strconv.Itoa(len(b.Value)), "Content-MD5": base64.StdEncoding.EncodeToString(b.md5()),
		"Accept-Ranges": "bytes", "X-Ms-Blob-Type": "BlockBlob", "X-Ms-Server-Encrypted": "true",
		"X-Ms-Creation-Time": b.Created.Format(http.TimeFormat),
		"X-Ms-Lease-State":   "available", "X-Ms-Lease-Status": "unlocked",
	} {
		h.Set(name, value)
	}
	if r.Method == http.MethodHead {
		h.Set("X-Ms-Access-Tier", "Hot")
		h.Set("X-Ms-Access-Tier-Inferred", "true")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b.Value)
	return nil
}
