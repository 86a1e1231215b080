package entra

import (
	"bytes"
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// The tags of an identity's secret. Every one that patrol does not know stays.
const (
	tagUser   = "patrol-user"
	tagUserID = "patrol-user-id"
	// tagDeclared is the manifest's user, while that is not the name of today.
	tagDeclared   = "patrol-user-declared"
	tagSignedInAt = "patrol-signed-in-at"
	// tagRequired: "<code> <since> <notified>", the last part from the second
	// notification on.
	tagRequired = "patrol-sign-in-required"
	// tagExpiring is the end that was warned of.
	tagExpiring = "patrol-sign-in-expiring"
	// tagUnannounced: a sign-in that has not been announced yet.
	tagUnannounced = "patrol-tell-signed-in"
	// tagClaims and its numbered followers are what the next sign-in must
	// satisfy: no secret, and longer than one tag.
	tagClaims = "patrol-sign-in-claims"

	maxTags      = 15
	maxTag       = 256
	maxClaimTags = 4
)

// required is a sign-in that a person has to make.
type required struct {
	code     string
	since    time.Time
	notified time.Time // zero: not yet
	err      *rotation.Error
	// elsewhere: it was found by another instance, while this one holds a refresh
	// token that the vault has not and that may still be good.
	elsewhere bool
}

func newRequired(e *rotation.Error, since time.Time) *required {
	return &required{code: e.Code, since: since, err: e}
}

func (r *required) tag() string {
	s := r.code + " " + r.since.UTC().Format(time.RFC3339)
	if r.notified.After(r.since) {
		s += " " + r.notified.UTC().Format(time.RFC3339)
	}
	return s
}

// parseRequired reads the tag; nil if there is none that can be understood.
func parseRequired(tag string) *required {
	f := strings.Fields(tag)
	if len(f) < 2 || len(tag) > maxTag || printable(f[0]) == "" {
		return nil
	}
	since, err := time.Parse(time.RFC3339, f[1])
	if err != nil {
		return nil
	}
	r := newRequired(&rotation.Error{Class: rotation.SignIn, Code: f[0], Message: messageFor(f[0])}, since)
	r.notified = since
	if len(f) > 2 {
		if notified, err := time.Parse(time.RFC3339, f[2]); err == nil {
			r.notified = notified
		}
	}
	return r
}

func claimsTag(i int) string {
	if i == 0 {
		return tagClaims
	}
	return tagClaims + "-" + strconv.Itoa(i+1)
}

// putClaims writes claims into tags, in place of those that are there. What
// does not fit is left out: the next sign-in then starts without it.
func putClaims(tags map[string]string, claims string) {
	for i := range maxClaimTags {
		delete(tags, claimsTag(i))
	}
	var compact bytes.Buffer
	if claims == "" || json.Compact(&compact, []byte(claims)) != nil {
		return
	}
	text := compact.String()
	pieces := (len(text) + maxTag - 1) / maxTag
	isWide := func(r rune) bool { return r > unicode.MaxASCII }
	if pieces > maxClaimTags || len(tags)+pieces > maxTags || strings.ContainsFunc(text, isWide) {
		return
	}
	for i := range pieces {
		tags[claimsTag(i)] = text[i*maxTag : min((i+1)*maxTag, len(text))]
	}
}

// claimsIn reads claims from tags; "" if there are none that can be used.
func claimsIn(tags map[string]string) string {
	var b strings.Builder
	for i := range maxClaimTags {
		piece := tags[claimsTag(i)]
		if b.WriteString(piece); len(piece) < maxTag {
			break
		}
	}
	if s := b.String(); len(s) <= maxClaimTags*maxTag && isJSONObject(s) {
		return s
	}
	return ""
}

// ownTags are the secret's tags without what a new refresh token settles,
// others' included.
func (a *account) ownTags(userID string) map[string]string {
	tags := maps.Clone(a.stored.tags)
	if tags == nil {
		tags = map[string]string{}
	}
	delete(tags, tagRequired)
	delete(tags, tagExpiring)
	putClaims(tags, "")
	a.putUser(tags)
	if userID != "" {
		tags[tagUserID] = userID
	}
	return tags
}
