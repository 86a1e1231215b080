package statestore_test

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/statestore"
	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

func sweep() statestore.LastSweep {
	at := time.Now().UTC()
	return statestore.LastSweep{At: at, By: "timer", Ended: at.Add(time.Second), Managed: 3, Commands: 2, Unmanaged: 1,
		Released: 4, Succeeded: at.Add(-6 * time.Hour), Problems: []statestore.Problem{{Scope: "organization",
			Identity: "build-bot", Organization: "contoso", Class: rotation.Policy, Code: "accessDenied",
			Message: "denied", Since: at.Add(-time.Hour)}},
		MassChanges: []statestore.MassChange{{Identity: "build-bot", Organization: "contoso", PATs: 5, Of: 6}}}
}

func failing(pat string) statestore.Failing {
	at := time.Now().UTC()
	return statestore.Failing{PAT: pat, Step: rotation.StepCreate, Class: rotation.Transient, Code: "timed-out",
		Message: "Azure DevOps did not answer", Attempt: 3, Since: at.Add(-time.Hour), At: at,
		RetryAt: at.Add(time.Minute),
		Notified: []statestore.Notified{
			{Step: rotation.StepCreate, Class: rotation.Transient, Code: "timed-out", At: at}},
		Refused: &statestore.Refused{Until: at.Add(time.Hour), Entry: "entry", Class: rotation.Policy, Code: "denied",
			Message: "the vault refuses"}}
}

func act(process string) statestore.Act {
	return statestore.Act{Key: "ada\nkey-1", Operation: "op-1", Process: process, Asked: "digest",
		Expires: time.Now().UTC().Add(5 * time.Minute)}
}

func TestEveryRecordComesBackAsItWasWritten(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		_, err := s.PutLastSweep(ctx, sweep(), statestore.Whatever)
		noError(t, err)
		gotSweep, _, err := s.LastSweep(ctx)
		noError(t, err)
		same(t, gotSweep, sweep())

		_, err = s.PutFailing(ctx, failing("Jenkins-Agents"), statestore.Whatever)
		noError(t, err)
		gotFailing, etag, err := s.Failing(ctx, "jenkins-agents") // names have no case
		noError(t, err)
		same(t, gotFailing, failing("Jenkins-Agents"))
		noError(t, s.DropFailing(ctx, "JENKINS-AGENTS", statestore.Unchanged(etag)))
		_, _, err = s.Failing(ctx, "Jenkins-Agents")
		wantError(t, "after the drop", err, statestore.ErrNotFound)

		notice := statestore.Notice{Key: "vault//vault-forbidden/1800000000", At: time.Now().UTC(),
			Since: time.Now().UTC().Add(-time.Hour), PATs: 7}
		_, err = s.PutNotice(ctx, notice, statestore.Unchanged(""))
		noError(t, err)
		gotNotice, etag, err := s.Notice(ctx, notice.Key)
		noError(t, err)
		same(t, gotNotice, notice)
		_, err = s.PutNotice(ctx, notice, statestore.Unchanged(""))
		wantError(t, "a second process", err, statestore.ErrConflict)
		noError(t, s.DropNotice(ctx, notice.Key, statestore.Unchanged(etag)))

		claim, err := s.ClaimAct(ctx, act("p-1"))
		noError(t, err)
		equal(t, "ours", claim.Ours, true)
		same(t, claim.Act, act("p-1"))
	})
}

func same[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestBlobsHaveTheNamesThatPeopleFindThemBy(t *testing.T) {
	for got, want := range map[string]string{
		statestore.Key(statestore.LastSweep{}):           "sweeps/last.json",
		statestore.Key(statestore.Failing{PAT: "A-Pat"}): "failing/a-pat.json",
		statestore.Key(statestore.Notice{Key: "key"}):    "told/2c70e12b7a0646f92279f427c7b38e73.json",
		statestore.Key(statestore.Act{Key: "key"}):       "acts/2c70e12b7a0646f92279f427c7b38e73.json",
	} {
		equal(t, "key", got, want)
	}
}

func TestWhatIsNotWholeIsNotWritten(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		ctx, errs := t.Context(), map[string]error{}
		_, errs["a sweep without a time"] = s.PutLastSweep(ctx, statestore.LastSweep{}, statestore.Whatever)
		_, errs["a failure of no PAT"] = s.PutFailing(ctx, statestore.Failing{At: time.Now()}, statestore.Whatever)
		_, errs["a failure of no name"] = s.PutFailing(ctx, statestore.Failing{PAT: "../a", At: time.Now()},
			statestore.Whatever)
		_, errs["a notice without a key"] = s.PutNotice(ctx, statestore.Notice{At: time.Now()}, statestore.Whatever)
		_, errs["a notice of an endless key"] = s.PutNotice(ctx, statestore.Notice{At: time.Now(),
			Key: strings.Repeat("k", statestore.MaxText+1)}, statestore.Whatever)
		_, errs["an act of no process"] = s.ClaimAct(ctx, act(""))
		broken := act("p-1")
		broken.Body = []byte("{")
		_, errs["an act whose answer is no JSON"] = s.ClaimAct(ctx, broken)
		_, errs["a time that JSON has not"] = s.PutLastSweep(ctx,
			statestore.LastSweep{At: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}, statestore.Whatever)
		for name, err := range errs {
			if e := rotation.AsError(err); e == nil || e.Code != "state-content" {
				t.Errorf("%s: error %v, want one with the code state-content", name, err)
			}
		}
		equal(t, "calls", len(s.panel.Counts()), 0)
	})
}

func TestAForeignBlobIsNamedAndCanBeReplaced(t *testing.T) {
	for name, value := range map[string]string{
		"no JSON": "{", "another type": `[]`, "nothing": "", "null": "null", "without its time": `{"by":"timer"}`,
		"two values": `{"at":"2026-12-01T00:00:00Z"}{}`, "a wrong time": `{"at":"yesterday"}`,
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, s *fixture) {
				there := s.put(t, key, value)
				_, etag, err := s.LastSweep(t.Context())
				e := wantClass(t, err, rotation.Configuration, "state-content")
				if !strings.Contains(e.Message, key) {
					t.Errorf("the message %q does not name the blob", e.Message)
				}
				equal(t, "ETag", etag, there)
				_, err = s.PutLastSweep(t.Context(), sweep(), statestore.Unchanged(etag))
				noError(t, err)
			})
		})
	}
}

func TestABlobUnderAnothersNameIsForeign(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		s.put(t, "failing/other.json", `{"pat":"a-pat","at":"2026-12-01T00:00:00Z"}`)
		_, _, err := s.Failing(t.Context(), "other")
		wantClass(t, err, rotation.Configuration, "state-content")
	})
}

func TestWhatNewerVersionsAddIsLeftOut(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		s.put(t, key, `{"at":"2026-12-01T00:00:00Z","by":"timer","mood":{"good":true}}`)
		got, _, err := s.LastSweep(t.Context())
		noError(t, err)
		equal(t, "by", got.By, "timer")
	})
}

func TestAllThatFailIsRead(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		for i := range 20 {
			_, err := s.PutFailing(ctx, failing(fmt.Sprintf("pat-%02d", i)), statestore.Whatever)
			noError(t, err)
		}
		all, complete, err := s.AllFailing(ctx)
		noError(t, err)
		equal(t, "complete", complete, true)
		equal(t, "how many", len(all), 20)
		for i, f := range all {
			equal(t, "order", f.PAT, fmt.Sprintf("pat-%02d", i))
		}

		s.put(t, "failing/pat-05.json", "no JSON")
		all, complete, err = s.AllFailing(ctx)
		wantClass(t, err, rotation.Configuration, "state-content")
		equal(t, "complete with a foreign blob", complete, false)
		equal(t, "how many with a foreign blob", len(all), 19)
	})
	story(t, func(t *testing.T, s *fixture) {
		for i := range statestore.MaxRead + 1 {
			n := statestore.Notice{Key: fmt.Sprint(i), At: time.Now()}
			_, err := s.PutNotice(t.Context(), n, statestore.Whatever)
			noError(t, err)
		}
		all, complete, err := s.AllNotices(t.Context())
		noError(t, err)
		equal(t, "complete", complete, false)
		equal(t, "how many", len(all), statestore.MaxRead)
	})
}

// A PAT that comes to rest while all are read is not missed.
func TestABlobThatGoesWhileAllAreReadIsNoTrouble(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		for _, pat := range []string{"a", "b"} {
			_, err := s.PutFailing(t.Context(), failing(pat), statestore.Whatever)
			noError(t, err)
		}
		s.inject(t, blob.ListBlobs, faults.Fault{Mode: faults.Slow, Delay: time.Second})
		f := refusal(404, "BlobNotFound")
		s.inject(t, blob.GetBlob, f)
		all, complete, err := s.AllFailing(t.Context())
		noError(t, err)
		equal(t, "complete", complete, true)
		equal(t, "how many", len(all), 1)
	})
}

func TestASweepWithManyProblemsFits(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		l := sweep()
		long := l.Problems[0]
		long.Message = strings.Repeat("ü", 2000)
		for range 5000 {
			l.Problems = append(l.Problems, long)
		}
		_, err := s.PutLastSweep(t.Context(), l, statestore.Whatever)
		noError(t, err)
		got, _, err := s.LastSweep(t.Context())
		noError(t, err)
		equal(t, "problems", len(got.Problems), statestore.MaxProblems)
		equal(t, "omitted", got.Omitted, len(l.Problems)-statestore.MaxProblems)
		equal(t, "length of a message", len([]rune(got.Problems[1].Message)), statestore.MaxText)
		equal(t, "the caller's own", len(l.Problems[1].Message), 4000)
	})
}

func TestAnIdempotencyKeyIsOneProcessesOnly(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		var mu sync.Mutex
		var winners []statestore.Claim
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				c, err := s.ClaimAct(ctx, act(fmt.Sprint("p-", i)))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if c.Ours {
					winners = append(winners, c)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d processes have the key, want one", len(winners))
		}
		won := winners[0]

		done := won.Act
		done.Status, done.Body, done.Expires = 202, []byte(`{"operation":"op-1"}`), time.Now().UTC().Add(24*time.Hour)
		_, err := s.FinishAct(ctx, done, won.ETag)
		noError(t, err)
		later, err := s.ClaimAct(ctx, act("p-9"))
		noError(t, err)
		equal(t, "ours", later.Ours, false)
		equal(t, "status", later.Act.Status, 202)
		equal(t, "body", string(later.Act.Body), `{"operation":"op-1"}`)
	})
}

func TestAKeyIsFreeOnceItsActIsOverdueOrDropped(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		dead, err := s.ClaimAct(ctx, act("p-1"))
		noError(t, err)
		time.Sleep(5 * time.Minute)
		next, err := s.ClaimAct(ctx, act("p-2"))
		noError(t, err)
		equal(t, "after its time", next.Ours, true)
		_, err = s.FinishAct(ctx, dead.Act, dead.ETag)
		wantError(t, "the process that was late", err, statestore.ErrConflict)

		noError(t, s.DropAct(ctx, next.Act.Key, next.ETag))
		again, err := s.ClaimAct(ctx, act("p-3"))
		noError(t, err)
		equal(t, "after the drop", again.Ours, true)

		s.put(t, statestore.Key(again.Act), "no JSON")
		over, err := s.ClaimAct(ctx, act("p-4"))
		noError(t, err)
		equal(t, "over a foreign blob", over.Ours, true)
	})
}

func TestAClaimWhoseAnswerWasLostIsKnownByItsProcess(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		s.inject(t, blob.PutBlob, faults.Fault{Mode: faults.ResetAfter})
		c, err := s.ClaimAct(t.Context(), act("p-1"))
		noError(t, err)
		equal(t, "ours", c.Ours, true)
	})
	story(t, func(t *testing.T, s *fixture) {
		s.inject(t, blob.PutBlob, faults.Fault{Mode: faults.ResetBefore, Then: func() {
			_, err := s.ClaimAct(t.Context(), act("p-2"))
			noError(t, err)
		}})
		c, err := s.ClaimAct(t.Context(), act("p-1"))
		noError(t, err)
		equal(t, "ours", c.Ours, false)
		equal(t, "whose", c.Act.Process, "p-2")
	})
}

func TestAClaimEndsWhereOthersTakeAndFreeTheKey(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		f := refusal(409, "BlobAlreadyExists")
		f.Times = -1
		s.inject(t, blob.PutBlob, f)
		_, err := s.ClaimAct(t.Context(), act("p-1"))
		wantError(t, "the claim", err, statestore.ErrConflict)
	})
}

func TestWhatIsOldIsPruned(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		notice := func(key string) {
			_, err := s.PutNotice(ctx, statestore.Notice{Key: key, At: time.Now()}, statestore.Whatever)
			noError(t, err)
		}
		notice("old")
		_, err := s.ClaimAct(ctx, act("p-1"))
		noError(t, err)
		time.Sleep(48 * time.Hour)
		notice("new")
		before := time.Now().Add(-24 * time.Hour)
		deleted, err := s.PruneNotices(ctx, before)
		noError(t, err)
		equal(t, "notices deleted", deleted, 1)
		_, _, err = s.Notice(ctx, "old")
		wantError(t, "the old one", err, statestore.ErrNotFound)
		_, _, err = s.Notice(ctx, "new")
		noError(t, err)
		deleted, err = s.PruneActs(ctx, before)
		noError(t, err)
		equal(t, "acts deleted", deleted, 1)

		s.inject(t, blob.ListBlobs, refusal(403, "AuthorizationPermissionMismatch"))
		_, err = s.PruneActs(ctx, before)
		wantClass(t, err, rotation.Configuration, "state-forbidden")
	})
}

func TestWhatIsWrittenWhileItIsPrunedStays(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		old := statestore.Notice{Key: "a", At: time.Now()}
		_, err := s.PutNotice(t.Context(), old, statestore.Whatever)
		noError(t, err)
		time.Sleep(time.Hour)
		s.inject(t, blob.DeleteBlob, faults.Fault{Mode: faults.Slow, Delay: time.Second})
		time.AfterFunc(500*time.Millisecond, func() { s.put(t, statestore.Key(old), "{}") })
		deleted, err := s.PruneNotices(t.Context(), time.Now())
		noError(t, err)
		equal(t, "deleted", deleted, 0)
		if _, ok := s.account.Blob(container, statestore.Key(old)); !ok {
			t.Error("the blob is gone")
		}
	})
}

// A secret that is put into a record by mistake is not stored.
func TestASecretIsStoredRedacted(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		f := failing("a-pat")
		f.Message = fmt.Sprint("the PAT is ", rotation.NewSecret("canary"))
		_, err := s.PutFailing(t.Context(), f, statestore.Whatever)
		noError(t, err)
		for _, b := range s.account.Blobs(container) {
			if strings.Contains(string(b.Value), "canary") {
				t.Errorf("%s holds a secret", b.Name)
			}
		}
	})
}
