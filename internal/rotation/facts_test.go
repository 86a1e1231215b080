package rotation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

var orderedAt = time.Date(2026, 11, 3, 7, 30, 0, 0, time.UTC)

// fullFacts is the longest set of facts that can be.
func fullFacts() rotation.Facts {
	return rotation.Facts{
		Digest: rotation.Digest(rotation.NewSecret("canary")), Owner: id1, Previous: rotation.ShortID(id2),
		PreviousEnds: rotation.EndsAfterOverlap,
		Order: rotation.NewOrder(rotation.AfterOverlap, orderedAt, strings.Repeat("o", 100),
			strings.Repeat("b", 100)),
		Done: rotation.ShortOperation(strings.Repeat("d", 100)),
	}
}

func TestFactsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]rotation.Facts{
		"all":  fullFacts(),
		"none": {},
		"an order now": {Order: rotation.NewOrder(rotation.Now, orderedAt, "op-1",
			"alice@contoso.com")},
		"ends": {PreviousEnds: rotation.EndsByItself},
	} {
		if got := rotation.ParseFacts(want.String()); got != want {
			t.Errorf("%s: read %+v, want %+v", name, got, want)
		}
	}
}

func TestTheLongestFactsFitIntoATag(t *testing.T) {
	t.Parallel()
	if n := len(fullFacts().String()); n > rotation.MaxFacts {
		t.Errorf("the longest facts have %d characters, a tag has room for %d", n, rotation.MaxFacts)
	}
}

func TestFactsThatPatrolWouldNotHaveWrittenCountAsAbsent(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{
		"digest=xyz", "digest=0123", "previous=1", "previous-ends=tomorrow", "order=now", "order=now,x,op,alice",
		"order=later,1760000000,op,alice", "order=now,-1,op,alice", "order", "=", ";;;", "unknown=1",
		strings.Repeat("digest=0123456789abcdef;", 40),
	} {
		if got := rotation.ParseFacts(tag); got != (rotation.Facts{}) {
			t.Errorf("%q is read as %+v, want nothing", tag, got)
		}
	}
}

func TestADigestIgnoresWhiteSpaceAtTheEndsOnly(t *testing.T) {
	t.Parallel()
	plain := rotation.Digest(rotation.NewSecret("canary one"))
	for value, same := range map[string]bool{"canary one\n": true, " canary one\r\n": true, "canary  one": false,
		"canary two": false} {
		if got := rotation.Digest(rotation.NewSecret(value)) == plain; got != same {
			t.Errorf("the digest of %q is that of %q: %v, want %v", value, "canary one", got, same)
		}
	}
}

func TestNowBeatsOverlapAndTheFirstOrderBeatsTheSecond(t *testing.T) {
	t.Parallel()
	first := rotation.NewOrder(rotation.AfterOverlap, orderedAt, "first", "alice")
	second := rotation.NewOrder(rotation.AfterOverlap, orderedAt, "second", "bob")
	now := rotation.NewOrder(rotation.Now, orderedAt, "now", "carol")
	later := rotation.NewOrder(rotation.Now, orderedAt, "later", "dave")
	for _, s := range []struct{ a, b, want rotation.Order }{
		{first, second, first}, {first, now, now}, {now, first, now}, {now, later, now},
		{rotation.Order{}, first, first}, {first, rotation.Order{}, first},
	} {
		if got := s.a.Stronger(s.b); got != s.want {
			t.Errorf("of %q and %q %q counts, want %q", s.a.Operation, s.b.Operation, got.Operation, s.want.Operation)
		}
	}
}

func FuzzParseFacts(f *testing.F) {
	f.Add(fullFacts().String())
	f.Add("order=now,1760000000,op,alice;digest=0123456789abcdef")
	f.Add(";=;order=,,,")
	f.Fuzz(func(t *testing.T, tag string) {
		facts := rotation.ParseFacts(tag)
		written := facts.String()
		if len(written) > rotation.MaxFacts {
			t.Errorf("%q is read as facts that take %d characters", tag, len(written))
		}
		if again := rotation.ParseFacts(written); again != facts {
			t.Errorf("%q is read as %+v, and read back as %+v", tag, facts, again)
		}
	})
}
