package rotation_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	vaultTag = "ab12cd"
	address  = "https://dev.azure.com/contoso"
	id1      = "00000000-0000-4000-8000-000000000001"
	id2      = "00000000-0000-4000-8000-000000000002"
	id3      = "00000000-0000-4000-8000-000000000003"
	idX      = "00000000-0000-4000-8000-00000000000f"
)

// day and at make times that read as ages: day 0 is when the current PAT was made.
var born = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func day(n float64) time.Time { return born.Add(time.Duration(n * float64(rotation.Day))) }

func spec() rotation.Spec {
	return rotation.Spec{
		Name: "jenkins-agents", Identity: "build-bot", Organization: "contoso", DisplayName: "Jenkins agents",
		Scopes: []string{"vso.agentpools_manage", "vso.build_execute"}, Lifetime: 30 * rotation.Day,
		RotateBefore: 10 * rotation.Day, Overlap: rotation.Day,
	}
}

// settled is an entry at rest: one version, made on day 0, announced, nothing before
// it, looked at a moment ago.
func settled(now time.Time) rotation.Observed {
	return rotation.Observed{
		Current: &rotation.Version{Name: "jenkins-agents", ID: "v1", Enabled: true, Created: born, Expires: day(30),
			Ledger: rotation.Ledger{
				AuthorizationID: id1, ProviderAddress: address, ValidityDays: 30,
				RotationID: rotation.RotationID("jenkins-agents", ""),
				Identity:   "build-bot", Reason: rotation.Provision, AnnouncedAt: born}},
		PATs:            []rotation.PAT{pat(id1, 0, 30)},
		ListedAt:        now,
		VaultTag:        vaultTag,
		ProviderAddress: address,
		Failed:          map[string]bool{},
		Ended:           map[string]bool{},
	}
}

func pat(id string, from, to float64) rotation.PAT {
	return rotation.PAT{AuthorizationID: id, DisplayName: rotation.DisplayName("Jenkins agents", vaultTag,
		rotation.RotationID("jenkins-agents", "")),
		Scopes: spec().Scopes, ValidFrom: day(from), ValidTo: day(to)}
}

// replaced puts a version before the settled one: made on day -20, to be revoked at
// the given day.
func replaced(o rotation.Observed, revokeAt float64) rotation.Observed {
	o.Current.Ledger.Previous, o.Current.Ledger.PreviousVersion = id2, "v0"
	o.Current.Ledger.RotationID = rotation.RotationID("jenkins-agents", "v0")
	o.Current.Ledger.RevokePreviousAt = day(revokeAt)
	o.Replaced = []rotation.Version{{Name: "jenkins-agents", ID: "v0", Enabled: true, Created: day(-20),
		Expires: day(10), Ledger: rotation.Ledger{
			AuthorizationID: id2, ProviderAddress: address, Identity: "build-bot", RotationID: "zzzzzzzzzz",
			AnnouncedAt: day(-20)}}}
	o.PATs = append(o.PATs, pat(id2, -20, 10))
	return o
}

// endsNow is replaced, and ordered to end at once.
func endsNow(o rotation.Observed) rotation.Observed {
	o = replaced(o, 0)
	o.Current.Ledger.Facts.PreviousEnds = rotation.EndsNow
	return o
}

// twice puts one more version before the replaced one, to be revoked at the given day.
func twice(o rotation.Observed, revokeAt float64) rotation.Observed {
	o.Replaced[0].Ledger.Previous, o.Replaced[0].Ledger.PreviousVersion = id3, "v00"
	o.Replaced[0].Ledger.RevokePreviousAt = day(revokeAt)
	o.Replaced = append(o.Replaced, rotation.Version{ID: "v00", Created: day(-25), Expires: day(5),
		Ledger: rotation.Ledger{AuthorizationID: id3}})
	o.PATs = append(o.PATs, pat(id3, -25, 5))
	return o
}

func lostSignIn() *rotation.Error {
	return &rotation.Error{Class: rotation.SignIn, Code: "AADSTS700082", Message: "sign in again"}
}

func TestEachRuleDecides(t *testing.T) {
	t.Parallel()
	type situation struct {
		name   string
		now    float64
		change func(s *rotation.Spec, o *rotation.Observed)
		action rotation.Action
		rule   string
		reason rotation.Reason
		revoke rotation.RevokePrevious
		cause  rotation.RevocationCause
		id     string // of the PAT or the replaced version that the action is about
		text   string // in the message
	}
	for _, tc := range []situation{
		{name: "at rest there is nothing to do", now: 5, action: rotation.Nothing, rule: "nothing"},

		{name: "without a sign-in nothing can be made", now: 25, action: rotation.ReportSignIn, rule: "sign-in",
			text:   "AADSTS700082",
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.SignIn = lostSignIn() }},
		{name: "an event needs no sign-in", now: 25, action: rotation.Announce, rule: "sign-in",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.SignIn = lostSignIn()
				o.Current.Ledger.AnnouncedAt = time.Time{}
			}},
		{name: "a stored rotation is announced", now: 5, action: rotation.Announce, rule: "unannounced",
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Current.Ledger.AnnouncedAt = time.Time{} }},
		{name: "a due rotation does not wait for an event", now: 25, action: rotation.Rotate, rule: "due",
			reason: rotation.Expiring, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Current.Ledger.AnnouncedAt = time.Time{} }},
		{name: "an event that could not be sent waits for the next run", now: 5, action: rotation.Nothing,
			rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger.AnnouncedAt, o.Silent = time.Time{}, true
			}},
		{name: "the oldest rotation is announced first", now: 5, action: rotation.Announce, rule: "unannounced",
			text: "zzzzzzzzzz",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 6)
				o.Current.Ledger.AnnouncedAt, o.Replaced[0].Ledger.AnnouncedAt = time.Time{}, time.Time{}
			}},
		{name: "an adopted version has nothing to announce", now: 5, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger.AnnouncedAt, o.Current.Ledger.RotationID = time.Time{}, ""
			}},

		{name: "a PAT with our marker that nobody knows is the sweep's matter", now: 5, action: rotation.Nothing,
			rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				p := pat(idX, 0, 35)
				p.ValidFrom = day(4)
				o.PATs = append(o.PATs, p)
			}},

		{name: "no secret yet", now: 5, action: rotation.Rotate, rule: "missing", reason: rotation.Provision,
			revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Current, o.PATs = nil, nil }},

		{name: "a secret put there by hand is adopted if exactly one PAT bears the declared name", now: 5,
			action: rotation.Adopt, rule: "adoption", id: idX,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger = rotation.Ledger{}
				o.PATs = []rotation.PAT{{AuthorizationID: idX, DisplayName: "jenkins AGENTS"},
					{AuthorizationID: id2, DisplayName: "other"}}
			}},
		{name: "a PAT that another version holds beside another value is not the one", now: 5,
			action: rotation.Rotate, rule: "adoption", reason: rotation.Provision, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger = rotation.Ledger{}
				o.PATs = []rotation.PAT{{AuthorizationID: idX, DisplayName: "Jenkins agents"}}
				o.Unlike = map[string]bool{idX: true}
			}},
		{name: "without such a PAT a new one takes its place", now: 5, action: rotation.Rotate, rule: "adoption",
			reason: rotation.Provision, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Current.Ledger, o.PATs = rotation.Ledger{}, nil }},
		{name: "a list older than the secret proves nothing about adoption", now: 5, action: rotation.Nothing,
			rule: "adoption", text: "a moment ago",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger, o.PATs = rotation.Ledger{}, nil
				o.ListedAt = o.Current.Created.Add(time.Minute)
			}},
		{name: "several candidates need a person", now: 5, action: rotation.Refuse, rule: "adoption", text: id2 + ", " +
			idX,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger = rotation.Ledger{}
				o.PATs = []rotation.PAT{{AuthorizationID: idX, DisplayName: "Jenkins agents"},
					{AuthorizationID: id2, DisplayName: "Jenkins agents"}}
			}},
		{name: "the manifest settles which of several is adopted", now: 5, action: rotation.Adopt, rule: "adoption",
			id: id2,
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Adopt = id2
				o.Current.Ledger = rotation.Ledger{}
				o.PATs = []rotation.PAT{{AuthorizationID: idX, DisplayName: "Jenkins agents"},
					{AuthorizationID: id2, DisplayName: "Jenkins agents"}}
			}},
		{name: "the named one is not there: a person must correct the manifest", now: 5, action: rotation.Refuse,
			rule: "adoption", text: "correct `adopt`",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Adopt = id3
				o.Current.Ledger = rotation.Ledger{}
				o.PATs = []rotation.PAT{{AuthorizationID: idX, DisplayName: "Jenkins agents"}}
			}},

		{name: "a ledger that was taken off is written again", now: 5, action: rotation.Recognize, rule: "recognized",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				l := o.Current.Ledger
				o.Current.Ledger, o.Recognized = rotation.Ledger{}, &l
			}},
		{name: "a value that is no PAT is left alone", now: 5, action: rotation.Refuse, rule: "not-a-pat",
			text: "no PAT",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger, o.PATs, o.NotAPAT = rotation.Ledger{}, nil, true
			}},
		{name: "unless the manifest says to replace it", now: 5, action: rotation.Rotate, rule: "not-a-pat",
			reason: rotation.Provision, revoke: rotation.AfterOverlap,
			change: func(s *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger, o.PATs, o.NotAPAT = rotation.Ledger{}, nil, true
				s.Adopt = rotation.AdoptReplace
			}},
		{name: "adopt: replace is for values that are no PATs only", now: 5, action: rotation.Adopt, rule: "adoption",
			id: idX,
			change: func(s *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger = rotation.Ledger{}
				o.PATs = []rotation.PAT{{AuthorizationID: idX, DisplayName: "Jenkins agents"}}
				s.Adopt = rotation.AdoptReplace
			}},
		{name: "an owner with another name is no move", now: 5, action: rotation.Relabel, rule: "moved",
			change: func(s *rotation.Spec, o *rotation.Observed) { s.Identity = "release-bot" }},
		{name: "a renamed organization is no move", now: 5, action: rotation.Relabel, rule: "moved",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.ProviderAddress = "https://dev.azure.com/contoso-ltd"
			}},

		{name: "ordered away from the current PAT", now: 5, action: rotation.Rotate, rule: "ordered",
			reason: rotation.Compromised, revoke: rotation.Now, text: "ordered by ada",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Order = rotation.NewOrder(rotation.Now, day(5), "op-1", "ada")
			}},
		{name: "an order with an overlap is a request", now: 5, action: rotation.Rotate, rule: "ordered",
			reason: rotation.Requested, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Order = rotation.NewOrder(rotation.AfterOverlap, day(5), "op-1", "")
			}},
		{name: "an order waits while its rotation has failed in this run", now: 5, action: rotation.Nothing,
			rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Order, o.Stuck = rotation.NewOrder(rotation.Now, day(5), "op-1", ""), true
			}},
		{name: "the brake does not hold an order", now: 5, action: rotation.Rotate, rule: "ordered",
			reason: rotation.Requested, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Order, o.Braked = rotation.NewOrder(rotation.AfterOverlap, day(5), "op-1", ""), true
			}},

		{name: "a disabled latest version is replaced", now: 5, action: rotation.Rotate, rule: "disabled",
			reason: rotation.Drift, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Current.Enabled = false }},
		{name: "moved to another organization", now: 5, action: rotation.Rotate, rule: "moved", reason: rotation.Drift,
			revoke: rotation.AfterOverlap, text: "fabrikam",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.ProviderAddress, o.PATs = "https://dev.azure.com/fabrikam", nil
			}},
		{name: "moved to another identity", now: 5, action: rotation.Rotate, rule: "moved", reason: rotation.Drift,
			revoke: rotation.AfterOverlap, text: "release-bot",
			change: func(s *rotation.Spec, o *rotation.Observed) { s.Identity, o.PATs = "release-bot", nil }},

		{name: "moved while many are: a person is asked first", now: 5, action: rotation.Nothing, rule: "nothing",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Identity, o.PATs, o.Braked = "release-bot", nil, true
			}},
		{name: "moved back within a day: two manifests may be in force", now: 0.5, action: rotation.Refuse,
			rule: "moved", text: "two manifests",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				s.Identity, o.Replaced[0].Ledger.Identity, o.PATs = "release-bot", "release-bot", nil
			}},
		{name: "moved back after a day", now: 1.5, action: rotation.Rotate, rule: "moved", reason: rotation.Drift,
			revoke: rotation.AfterOverlap,
			change: func(s *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 3)
				s.Identity, o.Replaced[0].Ledger.Identity, o.PATs = "release-bot", "release-bot", nil
			}},

		{name: "absence from one list is not believed", now: 5, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.PATs = nil }},
		{name: "a second witness: somebody revoked the current PAT", now: 5, action: rotation.Rotate, rule: "gone",
			reason: rotation.Compromised, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.PATs, o.Gone = nil, true }},
		{name: "gone with many others: a person is asked first", now: 5, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.PATs, o.Gone, o.Braked = nil, true, true }},
		{name: "listed and refused by the organization", now: 5, action: rotation.Rotate, rule: "refused",
			reason: rotation.Drift, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Refused = true }},
		{name: "a list from before the version was stored proves nothing", now: 0.001, action: rotation.Nothing,
			rule:   "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.PATs = nil }},
		{name: "the current PAT has run out", now: 31, action: rotation.Rotate, rule: "gone", reason: rotation.Expiring,
			revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.PATs = nil }},

		{name: "other scopes are drift", now: 5, action: rotation.Rotate, rule: "scopes", reason: rotation.Drift,
			revoke: rotation.AfterOverlap,
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.Scopes = []string{"vso.code"} }},

		{name: "scopes back to those before within a day", now: 0.5, action: rotation.Refuse, rule: "scopes",
			text: "two manifests",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				s.Scopes = []string{"vso.code"}
				o.PATs[1].Scopes = []string{"vso.code"}
			}},

		{name: "the scopes of a PAT that a person has restored wait for a person", now: 5, action: rotation.Refuse,
			rule: "scopes", text: "restored",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Scopes = []string{"vso.code"}
				o.Current.Ledger.RotationID = "rrrrrrrrrr"
			}},

		{name: "a conflict of scopes does not keep a PAT that is due", now: 25, action: rotation.Rotate, rule: "due",
			reason: rotation.Expiring, revoke: rotation.AfterOverlap,
			change: func(s *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 26)
				o.Current.Created = day(24.5)
				s.Scopes = []string{"vso.code"}
				o.PATs[1].Scopes = []string{"vso.code"}
			}},
		{name: "nor does it one that a person has restored", now: 25, action: rotation.Rotate, rule: "due",
			reason: rotation.Expiring, revoke: rotation.AfterOverlap,
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Scopes = []string{"vso.code"}
				o.Current.Ledger.RotationID = "rrrrrrrrrr"
			}},
		{name: "nor a conflict of owners", now: 25, action: rotation.Rotate, rule: "moved", reason: rotation.Drift,
			revoke: rotation.AfterOverlap,
			change: func(s *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 26)
				o.Current.Created, o.Current.Expires = day(24.5), day(25.5)
				s.Identity, o.Replaced[0].Ledger.Identity, o.PATs = "release-bot", "release-bot", nil
			}},

		{name: "an entry that left the manifest is not rotated", now: 25, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Released = true }},
		{name: "its overlap ends all the same", now: 25, action: rotation.Revoke, rule: "replaced", id: id2,
			cause: rotation.OverlapEnded,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				o.Released = true
			}},
		{name: "a shorter lifetime in the manifest counts for a PAT in force", now: 5, action: rotation.Rotate,
			rule: "due", reason: rotation.Expiring, revoke: rotation.AfterOverlap,
			change: func(s *rotation.Spec, _ *rotation.Observed) {
				s.Lifetime, s.RotateBefore = 7*rotation.Day, 3*rotation.Day
			}},
		{name: "but not for one that a person has extended", now: 5, action: rotation.Nothing, rule: "nothing",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Lifetime, s.RotateBefore = 7*rotation.Day, 3*rotation.Day
				o.Current.Ledger.History = rotation.Noted("", rotation.Note{At: day(1), Act: rotation.NoteExtended,
					Until: day(30), By: "ada"})
			}},
		{name: "a longer lifetime in the manifest leaves rotateBefore as it is", now: 26, action: rotation.Nothing,
			rule: "nothing",
			change: func(s *rotation.Spec, _ *rotation.Observed) {
				s.Lifetime, s.RotateBefore = 300*rotation.Day, 3*rotation.Day
			}},

		{name: "not due before its time", now: 17.9, action: rotation.Nothing, rule: "nothing"},
		{name: "due at rotateBefore at the latest", now: 20, action: rotation.Rotate, rule: "due",
			reason: rotation.Expiring, revoke: rotation.AfterOverlap},
		{name: "a clamped life is rotated at the same fraction", now: 5, action: rotation.Rotate, rule: "due",
			reason: rotation.Expiring, revoke: rotation.AfterOverlap, text: "the same fraction",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Expires, o.PATs = day(7), []rotation.PAT{pat(id1, 0, 7)}
			}},
		{name: "a clamped life is not rotated at once", now: 3, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Expires, o.PATs = day(7), []rotation.PAT{pat(id1, 0, 7)}
			}},

		{name: "a replaced PAT stays for its overlap", now: 0.9, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) { *o = replaced(*o, 1) }},
		{name: "a replaced PAT ends with its overlap", now: 1.001, action: rotation.Revoke, rule: "replaced",
			cause: rotation.OverlapEnded, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) { *o = replaced(*o, 1) }},
		{name: "a replaced PAT that ran out is closed", now: 10, action: rotation.Revoke, rule: "replaced",
			cause: rotation.Expired, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) { *o = replaced(*o, 10) }},
		{name: "a leaked one ends at once, before its event", now: 0.01, action: rotation.Revoke, rule: "now",
			cause: rotation.CauseRequested, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = endsNow(*o)
				o.Current.Ledger.AnnouncedAt = time.Time{}
			}},
		{name: "a leaked one ends before anything is rotated", now: 25, action: rotation.Revoke, rule: "now",
			cause: rotation.CauseRequested, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) { *o = endsNow(*o) }},
		{name: "an order on the replaced version ends it", now: 0.5, action: rotation.Revoke, rule: "now",
			cause: rotation.CauseRequested, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				o.Replaced[0].Ledger.Facts.Order = rotation.NewOrder(rotation.Now, day(0.4), "op-1", "ada")
			}},
		{name: "an order in the command ends it", now: 0.5, action: rotation.Revoke, rule: "now",
			cause: rotation.CauseRequested, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				o.Now = map[string]bool{id2: true}
			}},
		{name: "once it has ended, its event and its closing follow", now: 0.01, action: rotation.Revoke,
			rule: "replaced", cause: rotation.CauseRequested, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = endsNow(*o)
				o.Ended[id2] = true
			}},
		{name: "after the rotation's own event", now: 0.01, action: rotation.Announce, rule: "unannounced",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = endsNow(*o)
				o.Ended[id2] = true
				o.Current.Ledger.AnnouncedAt = time.Time{}
			}},
		{name: "ending a leaked one at once ends those in their overlap before it", now: 0.01, action: rotation.Revoke,
			rule: "now", cause: rotation.CauseRequested, id: id3,
			change: func(_ *rotation.Spec, o *rotation.Observed) { *o = twice(endsNow(*o), 2) }},
		{name: "a short cap is no order: the one before keeps its overlap", now: 1, action: rotation.Nothing,
			rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = twice(replaced(*o, 0.5), 5)
				o.Current.Ledger.Facts.PreviousEnds = rotation.EndsByItself
				o.Failed[id2] = true
			}},
		{name: "an edited time does not shorten the overlap", now: 0.5, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) { *o = replaced(*o, 0.1) }},
		{name: "the overlap waits for its rotation's event", now: 1.5, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				o.Current.Ledger.AnnouncedAt, o.Silent = time.Time{}, true
			}},
		{name: "but not beyond the replaced PAT's own end", now: 10, action: rotation.Revoke, rule: "replaced",
			cause: rotation.Expired, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				o.PATs = o.PATs[:1]
				o.Current.Ledger.AnnouncedAt, o.Silent = time.Time{}, true
			}},
		{name: "a late event leaves ten minutes", now: 1.001, action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				o.Current.Ledger.AnnouncedAt = day(1)
			}},
		{name: "a PAT revoked by hand is closed when its overlap ends, and nobody asked", now: 1.001,
			action: rotation.Revoke, rule: "replaced", cause: rotation.OverlapEnded, id: id2,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				o.PATs = o.PATs[:1]
			}},
		{name: "rotation comes before the revocation of what it replaced", now: 25, action: rotation.Rotate,
			rule: "due", reason: rotation.Expiring, revoke: rotation.AfterOverlap,
			change: func(_ *rotation.Spec, o *rotation.Observed) { *o = replaced(*o, 1) }},
		{name: "a ledger without a revocation time keeps the replaced PAT to its own end", now: 5,
			action: rotation.Nothing, rule: "nothing",
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				*o = replaced(*o, 1)
				o.Current.Ledger.RevokePreviousAt = time.Time{}
			}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, o := spec(), settled(day(tc.now))
			if tc.change != nil {
				tc.change(&s, &o)
			}
			got := rotation.Decide(s, o, day(tc.now))
			id := got.PAT.AuthorizationID
			if got.Action == rotation.Revoke {
				id = got.Version.Ledger.AuthorizationID
			}
			want := []string{string(tc.action), tc.rule, string(tc.reason), string(tc.revoke), string(tc.cause), tc.id}
			have := []string{string(got.Action), got.Rule, string(got.Reason), string(got.RevokePrevious),
				string(got.Cause), id}
			if !slices.Equal(want, have) {
				t.Errorf("action, rule, reason, revoke, cause, id:\n got %q\nwant %q\nmessage: %s", have, want,
					got.Message)
			}
			if !strings.Contains(got.Message, tc.text) || got.Message == "" {
				t.Errorf("message %q, want it to contain %q", got.Message, tc.text)
			}
		})
	}
}

func TestNothingSaysWhenToCheckNext(t *testing.T) {
	t.Parallel()
	s := spec()
	due := rotation.Due(s, born, day(30))

	// At rest: when it is due.
	if d := rotation.Decide(s, settled(day(5)), day(5)); !d.Next.Equal(due) || d.Schedule {
		t.Errorf("next check at %s (scheduled %t), want %s", d.Next, d.Schedule, due)
	}
	// With a replaced PAT: when that one ends.
	ends := day(1).Add(time.Second) // the version could be read within its second
	if d := rotation.Decide(s, replaced(settled(day(0.5)), 1), day(0.5)); !d.Next.Equal(ends) || !d.Schedule {
		t.Errorf("next check at %s (scheduled %t), want the end of the overlap, %s", d.Next, d.Schedule, ends)
	}
	// With an overlap that was lengthened, or whose event was late: nobody has sent a
	// command for that time.
	o := replaced(settled(day(0.5)), 1)
	o.Current.Ledger.AnnouncedAt = day(1)
	end := day(1).Add(rotation.AnnouncedFor)
	if d := rotation.Decide(s, o, day(1)); !d.Next.Equal(end) || !d.Schedule {
		t.Errorf("next check at %s (scheduled %t), want ten minutes after the event, %s", d.Next, d.Schedule, end)
	}
}

func TestDueIsSpreadByNameAndNeverLate(t *testing.T) {
	t.Parallel()
	s := spec()
	latest, earliest := day(20), day(18) // a tenth of (30 - 10) days
	seen := map[time.Time]bool{}
	for i := range 200 {
		s.Name = "pat-" + strings.Repeat("x", i)
		due := rotation.Due(s, born, day(30))
		if due.After(latest) || due.Before(earliest) {
			t.Fatalf("%s is due at %s, want between %s and %s", s.Name, due, earliest, latest)
		}
		seen[due] = true
	}
	if len(seen) < 190 {
		t.Errorf("200 names are due at %d moments: the fleet is not spread", len(seen))
	}
}

func TestAClampedLifeIsRotatedInItsOwnMeasure(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name             string
		overlap          time.Duration
		life             float64
		earliest, latest float64 // days before the end
	}{
		{name: "same fraction", overlap: 2 * time.Hour, life: 6, latest: 2, earliest: 2.41},
		{name: "the overlap must fit", overlap: 2 * rotation.Day, life: 5, latest: 2, earliest: 2.4},
		{name: "but not eat more than half of the life", overlap: 5 * rotation.Day, life: 2, latest: 1, earliest: 1.2},
		{name: "not clamped", overlap: rotation.Day, life: 30, latest: 10, earliest: 12},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := spec()
			s.Overlap = tc.overlap
			before := day(tc.life).Sub(rotation.Due(s, born, day(tc.life))).Hours() / 24
			if before < tc.latest || before > tc.earliest {
				t.Errorf("rotated %.2f days before the end, want between %.2f and %.2f", before, tc.latest, tc.earliest)
			}
		})
	}
}

func TestRotationIDsAreDeterministic(t *testing.T) {
	t.Parallel()
	a, b := rotation.RotationID("jenkins-agents", "v1"), rotation.RotationID("jenkins-agents", "v2")
	if again := rotation.RotationID("jenkins-agents", "v1"); again != a {
		t.Errorf("ids of one version: %q and %q", a, again)
	}
	if a == b {
		t.Errorf("two versions have one id: %q", a)
	}
	if len(a) != 10 || a != strings.ToLower(a) {
		t.Errorf("id %q: want ten lower-case characters", a)
	}
	// The worked value: lower-case base32 of SHA-256 over "x\n".
	if got, want := rotation.RotationID("x", ""), "opftqwfgq6"; got != want {
		t.Errorf("RotationID(x) = %q, want %q", got, want)
	}
	if tag := rotation.VaultTag("contoso.vault.azure.net"); len(tag) != 6 {
		t.Errorf("vault tag %q, want six characters", tag)
	}
}

func TestTheMarkerCanBeReadBack(t *testing.T) {
	t.Parallel()
	for _, declared := range []string{"Jenkins agents", "a (patrol b)", "x (patrol ab12cd-aaaaaaaaaa)", ""} {
		name := rotation.DisplayName(declared, "ab12cd", "bbbbbbbbbb")
		d, tag, id, ok := rotation.ParseDisplayName(name)
		if !ok {
			t.Errorf("ParseDisplayName(%q) finds no marker", name)
		}
		got, want := []string{d, tag, id}, []string{declared, "ab12cd", "bbbbbbbbbb"}
		if !slices.Equal(got, want) {
			t.Errorf("ParseDisplayName(%q) = %q, want %q", name, got, want)
		}
	}
	for _, foreign := range []string{"Jenkins agents", "x (patrol ab12cd-aaaaaaaaaa", "x (patrol ab12cd)",
		"x (patrol ab12-aaaaaaaaaa)", "x (patrol ab12cd-aaa)"} {
		if _, _, _, ok := rotation.ParseDisplayName(foreign); ok {
			t.Errorf("%q was taken for a PAT of patrol", foreign)
		}
	}
}
