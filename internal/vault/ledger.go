package vault

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"unique"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// The tags beside a PAT's value. The first three are the names that Azure's
// rotation samples use.
const (
	tagCredential      = "CredentialId"
	tagProvider        = "ProviderAddress"
	tagValidity        = "ValidityPeriodDays"
	tagRotation        = "patrol-rotation"
	tagIdentity        = "patrol-identity"
	tagReason          = "patrol-reason"
	tagPrevious        = "patrol-previous"
	tagPreviousVersion = "patrol-previous-version"
	tagRevokePrevious  = "patrol-revoke-previous-at"
	tagAnnounced       = "patrol-announced-at"
	tagRevoked         = "patrol-revoked-at"
	tagFacts           = "patrol-facts"
	tagConfirmed       = "patrol-confirmed"
	tagRequestedBy     = "patrol-requested-by"
	tagOperation       = "patrol-operation"
	tagHistory         = "patrol-history"

	// ownPrefix is that of tags that only a patrol writes, this one or a newer one.
	ownPrefix = "patrol-"
	// ledgerTags is how many tags patrol cannot do without in a version's life:
	// CredentialId, ProviderAddress, patrol-rotation, patrol-identity,
	// patrol-previous-version, patrol-revoke-previous-at, patrol-announced-at,
	// patrol-revoked-at and patrol-facts; patrol-confirmed where an entry has consumers.
	// The others give way to the tags of others.
	ledgerTags = 9
)

// Key Vault's limits. Its documentation gives 256 characters in older texts and
// 512 in newer ones; the smaller one holds everywhere.
const (
	maxTags      = 15
	maxTagLength = 256
	// longestTag is what a tag of the ledger may have when it is read.
	longestTag = 512
)

var reason = regexp.MustCompile(`^[a-z][a-z-]{0,31}$`)

// encode writes a ledger and the tags of others into one set. It refuses a set
// that the vault would refuse, before the request.
func encode(doing string, l rotation.Ledger, foreign map[string]string) (map[string]*string, error) {
	own := make(map[string]string, ledgerTags)
	text := func(tag, value string) {
		if value != "" {
			own[tag] = value
		}
	}
	moment := func(tag string, t time.Time) {
		if !t.IsZero() {
			own[tag] = t.UTC().Format(time.RFC3339)
		}
	}
	text(tagCredential, l.AuthorizationID)
	text(tagProvider, l.ProviderAddress)
	text(tagRotation, l.RotationID)
	text(tagIdentity, l.Identity)
	text(tagPreviousVersion, l.PreviousVersion)
	moment(tagRevokePrevious, l.RevokePreviousAt)
	moment(tagAnnounced, l.AnnouncedAt)
	moment(tagRevoked, l.RevokedAt)
	text(tagFacts, l.Facts.String())
	text(tagConfirmed, l.Confirmed)

	all := maps.Clone(own)
	for k, value := range foreign {
		if !ledgerTag(k) {
			all[k] = value
		}
	}
	if n := len(all) - len(own); len(all) > maxTags {
		return nil, configuration("vault-tags", "%s: it has %d tags that are not patrol's, and a secret has at most "+
			"%d tags in all, of which patrol needs up to %d: remove %d of them",
			doing, n, maxTags, ledgerTags, n-(maxTags-ledgerTags))
	}
	// What is still to be written in this version's life keeps its room.
	pending := 0
	for _, at := range []time.Time{l.AnnouncedAt, l.RevokedAt} {
		if at.IsZero() {
			pending++
		}
	}
	for _, note := range notes(l) {
		if note.value != "" && len(all)+pending < maxTags {
			all[note.tag] = note.value
		}
	}
	return checkTags(doing, all)
}

// notes are the tags that give way to those of others, the most useful first. No rule
// rests on one.
func notes(l rotation.Ledger) []struct{ tag, value string } {
	validity := ""
	if l.ValidityDays > 0 {
		validity = strconv.Itoa(l.ValidityDays)
	}
	return []struct{ tag, value string }{{tagPrevious, l.Previous}, {tagReason, string(l.Reason)},
		{tagOperation, l.Operation}, {tagRequestedBy, l.RequestedBy}, {tagHistory, l.History}, {tagValidity, validity}}
}

// carried are the tags of a replaced version that go on to its successor: those of
// others. A tag of a newer patrol says something of the version that it stands on.
func carried(foreign map[string]string) map[string]string {
	out := make(map[string]string, len(foreign))
	for k, value := range foreign {
		if !strings.HasPrefix(strings.ToLower(k), ownPrefix) {
			out[k] = value
		}
	}
	return out
}

// checkTags holds a tag set against the vault's limits and puts it into the SDK's
// form.
func checkTags(doing string, tags map[string]string) (map[string]*string, error) {
	if len(tags) > maxTags {
		return nil, configuration("vault-tags", "%s: a secret has at most %d tags, these are %d", doing, maxTags,
			len(tags))
	}
	out := make(map[string]*string, len(tags))
	for _, k := range slices.Sorted(maps.Keys(tags)) { // the same error every time
		value := tags[k]
		limit := maxTagLength
		if !ledgerTag(k) && !strings.HasPrefix(k, "patrol-") {
			limit = longestTag // the vault took it once
		}
		fits := utf8.RuneCountInString(k) <= limit && utf8.RuneCountInString(value) <= limit
		isText := utf8.ValidString(k) && utf8.ValidString(value)
		if k == "" || !fits || !isText {
			return nil, configuration("vault-tags",
				"%s: the tag %q is longer than the %d characters that the vault allows, or not text: shorten it",
				doing, short(k), limit)
		}
		out[k] = &value
	}
	return out, nil
}

// decode takes a tag set apart. People can edit tags: a value that patrol would
// not have written counts as absent, and every tag that is not the ledger's is
// kept as it is.
func decode(tags map[string]*string) (rotation.Ledger, map[string]string) {
	text := func(tag string) string {
		p := tags[tag]
		if p == nil || len(*p) > longestTag || !printable(*p) {
			return ""
		}
		return strings.TrimSpace(*p)
	}
	moment := func(tag string) time.Time {
		t, err := time.Parse(time.RFC3339, text(tag))
		if err != nil || t.UTC().Year() < 2000 || t.UTC().Year() > 9999 {
			return time.Time{}
		}
		return t.UTC()
	}
	matching := func(tag string, pattern *regexp.Regexp) string {
		if s := text(tag); pattern.MatchString(s) {
			return s
		}
		return ""
	}
	l := rotation.Ledger{
		AuthorizationID:  text(tagCredential),
		ProviderAddress:  shared(text(tagProvider)),
		RotationID:       text(tagRotation),
		Identity:         shared(text(tagIdentity)),
		Reason:           rotation.Reason(shared(matching(tagReason, reason))),
		Previous:         text(tagPrevious),
		PreviousVersion:  matching(tagPreviousVersion, versionID),
		RevokePreviousAt: moment(tagRevokePrevious),
		AnnouncedAt:      moment(tagAnnounced),
		RevokedAt:        moment(tagRevoked),
		Facts:            rotation.ParseFacts(text(tagFacts)),
		Confirmed:        text(tagConfirmed),
		RequestedBy:      text(tagRequestedBy),
		Operation:        text(tagOperation),
		History:          text(tagHistory),
	}
	if days, err := strconv.Atoi(text(tagValidity)); err == nil && days > 0 && days < 10000 {
		l.ValidityDays = days
	}
	var foreign map[string]string
	for k, p := range tags {
		if p == nil || ledgerTag(k) {
			continue
		}
		if foreign == nil {
			foreign = map[string]string{}
		}
		foreign[k] = *p
	}
	return l, foreign
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func ledgerTag(k string) bool {
	switch k {
	case tagCredential, tagProvider, tagValidity, tagRotation, tagIdentity, tagReason, tagPrevious,
		tagPreviousVersion, tagRevokePrevious, tagAnnounced, tagRevoked, tagFacts, tagConfirmed, tagRequestedBy,
		tagOperation, tagHistory:
		return true
	}
	return false
}

// short cuts a name to what fits into a message.
func short(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "..."
	}
	return s
}

// shared keeps one copy of a text that thousands of secrets have alike.
func shared(s string) string { return unique.Make(s).Value() }
