package keyvault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// knownVersion reports whether the service has this version of the data plane's API.
func knownVersion(v string) bool {
	switch v {
	case "2026-04-01", "2025-07-01", "7.6", "7.5", "7.4", "7.3":
		return true
	}
	return false
}

var (
	secretName = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)
	versionID  = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
)

// failure is an answer that is not a success.
type failure struct {
	status  int
	code    string
	message string
	inner   string
	after   time.Duration
}

func (f *failure) Error() string { return f.code + ": " + f.message }

func bad(format string, args ...any) *failure {
	return &failure{http.StatusBadRequest, "BadParameter", fmt.Sprintf(format, args...), "", 0}
}

func notFound(what string) *failure {
	return &failure{http.StatusNotFound, "SecretNotFound", "A secret with (name/id) " + what +
		" was not found in this key vault.", "", 0}
}

// ErrorBody is the body of an error answer, for faults that look like the service's own:
// code Forbidden and inner ForbiddenByRbac, say.
func ErrorBody(code, message, inner string) string {
	type innerError struct {
		Code string `json:"code"`
	}
	var body struct {
		Error struct {
			Code    string      `json:"code"`
			Message string      `json:"message"`
			Inner   *innerError `json:"innererror,omitempty"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message = code, message
	if inner != "" {
		body.Error.Inner = &innerError{inner}
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// route names the operation of a request and takes its path apart; an empty
// operation: there is none.
func route(r *http.Request) (operation, name, version string) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	// A client that asks for the latest version leaves the last segment empty.
	if len(parts) > 1 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	for len(parts) < 3 {
		parts = append(parts, "")
	}
	if len(parts) > 3 {
		return "", "", ""
	}
	name = parts[1]
	switch parts[0] {
	case "secrets":
		switch {
		case name == "" && parts[2] == "" && r.Method == http.MethodGet:
			return ListSecrets, "", ""
		case name == "":
		case parts[2] == "versions" && r.Method == http.MethodGet:
			return ListVersions, name, ""
		case r.Method == http.MethodGet:
			return GetSecret, name, parts[2]
		case r.Method == http.MethodPatch:
			return UpdateSecret, name, parts[2]
		case r.Method == http.MethodPut && parts[2] == "":
			return SetSecret, name, ""
		case r.Method == http.MethodDelete && parts[2] == "":
			return DeleteSecret, name, ""
		}
	case "deletedsecrets":
		switch {
		case name == "" && parts[2] == "" && r.Method == http.MethodGet:
			return ListDeletedSecrets, "", ""
		case name == "":
		case parts[2] == "recover" && r.Method == http.MethodPost:
			return RecoverDeletedSecret, name, ""
		case parts[2] == "" && r.Method == http.MethodGet:
			return GetDeletedSecret, name, ""
		case parts[2] == "" && r.Method == http.MethodDelete:
			return PurgeDeletedSecret, name, ""
		}
	}
	return "", "", ""
}

// operation names a request for the injector of faults.
func operation(r *http.Request) string {
	if r.Header.Get("Authorization") == "" {
		return Challenge
	}
	name, _, _ := route(r)
	return name
}

func (v *Vault) serve(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.requests++
	n := v.requests
	v.mu.Unlock()
	w.Header().Set("X-Ms-Request-Id", fmt.Sprintf("00000000-0000-4000-8000-%012x", n))
	w.Header().Set("Cache-Control", "no-cache")
	status, body, err := v.answer(w, r)
	if err != nil {
		f, ok := errors.AsType[*failure](err)
		if !ok {
			f = &failure{http.StatusInternalServerError, "InternalServerError", "", "", 0}
		}
		if f.after > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((f.after+time.Second-1)/time.Second)))
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(f.status)
		_, _ = io.WriteString(w, ErrorBody(f.code, f.message, f.inner))
		return
	}
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (v *Vault) answer(w http.ResponseWriter, r *http.Request) (int, any, error) {
	token, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	err := error(nil)
	message := "The request has no bearer token."
	if isBearer {
		err = v.cfg.Verify(token)
		if err != nil {
			message = "The bearer token is not valid for this vault."
		}
	}
	if !isBearer || err != nil {
		challenge := fmt.Sprintf(`Bearer authorization="%s/%s", resource="%s"`, v.cfg.Authority, v.cfg.Tenant,
			v.cfg.Resource)
		if v.cfg.ChallengeScope {
			challenge = fmt.Sprintf(`Bearer authorization="%s/%s", scope="%s/.default", resource="%s"`, v.cfg.Authority,
				v.cfg.Tenant, v.cfg.Resource, v.cfg.Resource)
		}
		w.Header().Set("WWW-Authenticate", challenge)
		return 0, nil, &failure{http.StatusUnauthorized, "Unauthorized", message, "", 0}
	}
	q := r.URL.Query()
	switch api := q.Get("api-version"); {
	case api == "":
		return 0, nil, bad("The query parameter api-version is required.")
	case !knownVersion(api):
		return 0, nil, bad("The api-version %q is not supported.", api)
	}
	op, name, version := route(r)
	if op == "" {
		return 0, nil, &failure{http.StatusNotFound, "NotFound", "There is no such operation.", "", 0}
	}
	if v.cfg.Allow != nil && !v.cfg.Allow(token, op, name) {
		return 0, nil, &failure{http.StatusForbidden, "Forbidden", "Caller is not authorized to perform action on " +
			"resource. If role assignments, deny assignments or role definitions were changed recently, please " +
			"observe propagation time.", "ForbiddenByRbac", 0}
	}
	if op != ListSecrets && op != ListDeletedSecrets && !secretName.MatchString(name) {
		return 0, nil, bad("The request URI contains an invalid name: %s", name)
	}
	if version != "" && !versionID.MatchString(version) {
		return 0, nil, bad("The request URI contains an invalid version.")
	}
	if err := v.throttle(op); err != nil {
		return 0, nil, err
	}
	switch op {
	case ListSecrets, ListVersions, ListDeletedSecrets:
		return v.list(op, name, q)
	case GetSecret:
		return v.get(name, version)
	case SetSecret:
		c, err := decode(r, true)
		if err != nil {
			return 0, nil, err
		}
		ver, err := v.set(name, c)
		if err != nil {
			return 0, nil, err
		}
		return http.StatusOK, v.bundle(ver, true), nil
	case UpdateSecret:
		c, err := decode(r, false)
		if err != nil {
			return 0, nil, err
		}
		ver, err := v.update(name, version, c)
		if err != nil {
			return 0, nil, err
		}
		return http.StatusOK, v.bundle(ver, false), nil
	case DeleteSecret:
		s, err := v.remove(name)
		if err != nil {
			return 0, nil, err
		}
		return http.StatusOK, v.deletedBundle(s), nil
	case GetDeletedSecret:
		v.mu.Lock()
		s := v.find(name)
		there := s != nil && (v.phase(s) == deleted || v.phase(s) == recovering)
		v.mu.Unlock()
		if !there {
			return 0, nil, notFound(name)
		}
		return http.StatusOK, v.deletedBundle(s), nil
	case RecoverDeletedSecret:
		s, err := v.restore(name)
		if err != nil {
			return 0, nil, err
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		return http.StatusOK, v.bundle(s.snapshot(s.latest()), false), nil
	default: // PurgeDeletedSecret
		if err := v.purge(name); err != nil {
			return 0, nil, err
		}
		return http.StatusNoContent, nil, nil
	}
}

func (v *Vault) get(name, version string) (int, any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ver, err := v.version(name, version)
	if err != nil {
		return 0, nil, err
	}
	if !ver.Enabled {
		inner := v.cfg.DisabledCode
		if inner == "-" {
			inner = ""
		}
		return 0, nil, &failure{http.StatusForbidden, "Forbidden", "Operation get is not allowed on a disabled secret.",
			inner, 0}
	}
	return http.StatusOK, v.bundle(s.snapshot(ver), true), nil
}

// throttle counts a call against the vault's budget for the current ten
// seconds. Refused calls are not counted.
func (v *Vault) throttle(op string) error {
	if v.cfg.NoThrottle {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if !now.Before(v.slotEnd) {
		v.slotEnd, v.creates, v.others = now.Add(slot), 0, 0
	}
	used, limit := &v.others, othersPerSlot
	if op == SetSecret {
		used, limit = &v.creates, createsPerSlot
	}
	if *used >= limit {
		return &failure{http.StatusTooManyRequests, "Throttled", "Too many requests in ten seconds.", "",
			v.slotEnd.Sub(now)}
	}
	*used++
	return nil
}

// attributes on the wire: times are seconds since 1970.
type attributes struct {
	Enabled         *bool  `json:"enabled,omitempty"`
	NotBefore       *int64 `json:"nbf,omitempty"`
	Expires         *int64 `json:"exp,omitempty"`
	Created         *int64 `json:"created,omitempty"`
	Updated         *int64 `json:"updated,omitempty"`
	RecoveryLevel   string `json:"recoveryLevel,omitempty"`
	RecoverableDays int    `json:"recoverableDays,omitempty"`
}

type bundle struct {
	Value       *string           `json:"value,omitempty"`
	ID          string            `json:"id"`
	ContentType string            `json:"contentType,omitempty"`
	Attributes  attributes        `json:"attributes"`
	Tags        map[string]string `json:"tags,omitempty"`

	RecoveryID         string `json:"recoveryId,omitempty"`
	DeletedDate        int64  `json:"deletedDate,omitempty"`
	ScheduledPurgeDate int64  `json:"scheduledPurgeDate,omitempty"`
}

func (v *Vault) bundle(ver Version, withValue bool) bundle {
	level := "Recoverable+Purgeable"
	if v.cfg.PurgeProtection {
		level = "Recoverable"
	}
	b := bundle{ID: ver.URL, ContentType: ver.ContentType, Tags: ver.Tags, Attributes: attributes{
		Enabled: &ver.Enabled, NotBefore: seconds(ver.NotBefore), Expires: seconds(ver.Expires),
		Created: seconds(ver.Created), Updated: seconds(ver.Updated),
		RecoveryLevel: level, RecoverableDays: v.cfg.RetentionDays,
	}}
	if withValue {
		b.Value = &ver.Value
	}
	return b
}

func (v *Vault) deletedBundle(s *secret) bundle {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.deletedProperties(s, s.latest().URL)
}

func (v *Vault) deletedProperties(s *secret, id string) bundle {
	b := v.bundle(s.snapshot(s.latest()), false)
	b.ID = id
	b.RecoveryID = v.cfg.URL + "/deletedsecrets/" + s.name
	if !s.deleted.IsZero() {
		b.DeletedDate = s.deleted.Unix()
		b.ScheduledPurgeDate = v.purgeAt(s).Unix()
	}
	return b
}

type page struct {
	Value    []bundle `json:"value"`
	NextLink *string  `json:"nextLink"`
}

// list answers one page. A page begins after the entry that the skip token
// names, so that writes in between neither repeat nor hide others.
func (v *Vault) list(op, name string, q url.Values) (int, any, error) {
	size := pageSize
	if m := q.Get("maxresults"); m != "" {
		n, err := strconv.Atoi(m)
		if err != nil || n < 1 || n > pageSize {
			return 0, nil, bad("The query parameter maxresults must be from 1 to %d.", pageSize)
		}
		size = n
	}
	after := ""
	if token := q.Get("$skiptoken"); token != "" {
		b, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || !bytes.HasPrefix(b, []byte("after:")) {
			return 0, nil, bad("The query parameter $skiptoken is not valid.")
		}
		after = string(b[len("after:"):])
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	p := page{Value: []bundle{}}
	if v.cfg.EmptyPages && q.Get("$skiptoken") == "" {
		p.NextLink = v.next(op, name, q, "")
		return http.StatusOK, p, nil
	}
	add := func(key string, entry func() bundle) bool {
		if len(p.Value) == size {
			p.NextLink = v.next(op, name, q, after)
			return false
		}
		p.Value = append(p.Value, entry())
		after = key
		return true
	}
	if op == ListVersions {
		s := v.find(name)
		if s == nil || v.phase(s) != active {
			if v.cfg.EmptyVersions {
				return http.StatusOK, p, nil
			}
			return 0, nil, notFound(name)
		}
		// The service promises no order. The ids' own order shows which client
		// takes the last one for the latest.
		versions := slices.SortedFunc(slices.Values(s.versions),
			func(a, b *Version) int { return strings.Compare(a.ID, b.ID) })
		for _, ver := range versions {
			if ver.ID > after && !add(ver.ID, func() bundle { return v.bundle(s.snapshot(ver), false) }) {
				break
			}
		}
		return http.StatusOK, p, nil
	}
	from, found := slices.BinarySearch(v.names, after)
	if found {
		from++
	}
	for _, key := range v.names[from:] {
		s := v.secrets[key]
		phase := v.phase(s)
		if phase == deleted && time.Now().After(v.purgeAt(s)) {
			continue
		}
		if (phase == active) != (op == ListSecrets) || phase == deleting {
			continue
		}
		id := v.cfg.URL + "/secrets/" + s.name
		if !add(key, func() bundle {
			if op == ListDeletedSecrets {
				return v.deletedProperties(s, id)
			}
			b := v.bundle(s.snapshot(s.latest()), false)
			b.ID = id
			return b
		}) {
			break
		}
	}
	return http.StatusOK, p, nil
}

func (v *Vault) next(op, name string, q url.Values, after string) *string {
	path := map[string]string{ListSecrets: "/secrets", ListDeletedSecrets: "/deletedsecrets",
		ListVersions: "/secrets/" + name + "/versions"}[op]
	link := v.cfg.URL + path + "?api-version=" + url.QueryEscape(q.Get("api-version")) +
		"&$skiptoken=" + base64.RawURLEncoding.EncodeToString([]byte("after:"+after))
	if m := q.Get("maxresults"); m != "" {
		link += "&maxresults=" + m
	}
	return &link
}

// decode reads the body of a write. Properties that the service does not know
// are refused: a client that sends them means something else.
func decode(r *http.Request, withValue bool) (content, error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return content{}, &failure{http.StatusUnsupportedMediaType, "BadParameter",
			"The body must be application/json.", "", 0}
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return content{}, bad("The body could not be read.")
	}
	var in struct {
		Value       *string            `json:"value"`
		ContentType *string            `json:"contentType"`
		Tags        map[string]*string `json:"tags"`
		Attributes  struct {
			Enabled   *bool  `json:"enabled"`
			NotBefore *int64 `json:"nbf"`
			Expires   *int64 `json:"exp"`
		} `json:"attributes"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil || d.More() {
		return content{}, bad("The body is not a valid request.")
	}
	if in.Value != nil && !withValue {
		return content{}, bad("The value of a version cannot be changed.")
	}
	c := content{value: in.Value, contentType: in.ContentType, enabled: in.Attributes.Enabled,
		expires: in.Attributes.Expires, notBefore: in.Attributes.NotBefore}
	if in.Tags != nil {
		c.tags = make(map[string]string, len(in.Tags))
		for k, t := range in.Tags {
			if t == nil {
				return content{}, bad("A tag has no value.")
			}
			c.tags[k] = *t
		}
	}
	return c, nil
}

// check holds a write against the service's limits.
func (v *Vault) check(name string, c content) error {
	tag := 256
	if v.cfg.LongTags {
		tag = 512
	}
	switch {
	case !secretName.MatchString(name):
		return bad("The request URI contains an invalid name: %s", name)
	case c.value != nil && len(*c.value) > maxValue:
		return bad("The value is longer than %d bytes.", maxValue)
	case c.contentType != nil && len(*c.contentType) > maxContentType:
		return bad("The content type is longer than %d characters.", maxContentType)
	case len(c.tags) > maxTags:
		return bad("There are more than %d tags.", maxTags)
	case c.expires != nil && *c.expires < 0, c.notBefore != nil && *c.notBefore < 0:
		return bad("The attributes exp and nbf cannot be negative.")
	case c.expires != nil && c.notBefore != nil && *c.expires <= *c.notBefore:
		return bad("The attribute exp must be later than nbf.")
	}
	for k, t := range c.tags {
		if k == "" || utf8.RuneCountInString(k) > tag || utf8.RuneCountInString(t) > tag {
			return bad("A tag's name has 1 to %d characters, its value at most %d.", tag, tag)
		}
	}
	return nil
}
