package statestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/statestore"
	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

const key = "sweeps/last.json"

func TestAProcessReadsWhatAnotherHasWritten(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		_, err := s.Get(ctx, key)
		wantError(t, "before the first write", err, statestore.ErrNotFound)

		first, err := s.Put(ctx, key, []byte(`{"n":1}`), statestore.Unchanged(""))
		noError(t, err)
		time.Sleep(time.Minute)
		got, err := s.Get(ctx, key)
		noError(t, err)
		equal(t, "value", string(got.Value), `{"n":1}`)
		equal(t, "ETag", got.ETag, first)
		equalTimes(t, "modified", got.Modified, time.Now().Add(-time.Minute))
		there, _ := s.account.Blob(container, key)
		equal(t, "content type", there.ContentType, "application/json")

		_, err = s.GetUnless(ctx, key, first)
		wantError(t, "the blob that the caller has", err, statestore.ErrUnchanged)

		second, err := s.Put(ctx, key, []byte(`{"n":1}`), statestore.Unchanged(first))
		noError(t, err)
		if second == first {
			t.Error("a second write of the same value has the first one's ETag")
		}
		got, err = s.GetUnless(ctx, key, first)
		noError(t, err)
		equal(t, "ETag of the second write", got.ETag, second)

		noError(t, s.Delete(ctx, key, statestore.Unchanged(second)))
		_, err = s.Get(ctx, key)
		wantError(t, "after the deletion", err, statestore.ErrNotFound)
		noError(t, s.Delete(ctx, key, statestore.Whatever))
		noError(t, s.Delete(ctx, key, statestore.Unchanged(second)))
	})
}

func TestAWriteTakesEffectOnItsConditionOnly(t *testing.T) {
	whatever := func(statestore.ETag) statestore.Condition { return statestore.Whatever }
	none := func(statestore.ETag) statestore.Condition { return statestore.Unchanged("") }
	another := func(statestore.ETag) statestore.Condition { return statestore.Unchanged(`"0x1"`) }
	for name, c := range map[string]struct {
		there bool
		when  func(current statestore.ETag) statestore.Condition
		taken bool
	}{
		"whatever, nothing there":   {false, whatever, true},
		"whatever, a blob there":    {true, whatever, true},
		"none, nothing there":       {false, none, true},
		"none, a blob there":        {true, none, false},
		"the same, a blob there":    {true, statestore.Unchanged, true},
		"another, a blob there":     {true, another, false},
		"another, but nothing left": {false, another, false},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, s *fixture) {
				var current statestore.ETag
				if c.there {
					current = s.put(t, key, "before")
				}
				_, err := s.Put(t.Context(), key, []byte("after"), c.when(current))
				there, _ := s.account.Blob(container, key)
				if c.taken {
					noError(t, err)
					equal(t, "value", string(there.Value), "after")
					return
				}
				wantError(t, "the write", err, statestore.ErrConflict)
				if string(there.Value) == "after" {
					t.Error("the write was refused and has taken effect")
				}
			})
		})
	}
}

func TestADeletionTakesEffectOnItsConditionOnly(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		old := s.put(t, key, "1")
		s.put(t, key, "2")
		wantError(t, "by an old ETag", s.Delete(t.Context(), key, statestore.Unchanged(old)), statestore.ErrConflict)
		if _, ok := s.account.Blob(container, key); !ok {
			t.Error("the blob is gone")
		}
	})
}

func TestADeletionOfWhatIsGoneIsDoneHoweverTheAccountAnswers(t *testing.T) {
	for _, first := range []bool{false, true} {
		story(t, func(t *testing.T, s *fixture) {
			noError(t, s.Delete(t.Context(), key, statestore.Unchanged(`"0x1"`)))
		}, func(c *blob.Config, _ *statestore.Config) { c.ConditionFirst = first })
	}
}

// An answer that is lost is asked for again; what the second attempt meets may be the
// first one's work.
func TestAWriteWhoseAnswerWasLostIsNoConflict(t *testing.T) {
	for _, f := range []faults.Fault{
		{Mode: faults.ResetAfter}, {Mode: faults.HangAfter}, {Mode: faults.StatusAfter, Status: 500},
	} {
		t.Run(string(f.Mode), func(t *testing.T) {
			story(t, func(t *testing.T, s *fixture) {
				s.inject(t, blob.PutBlob, f)
				etag, err := s.Put(t.Context(), key, []byte("mine"), statestore.Unchanged(""))
				noError(t, err)
				there, _ := s.account.Blob(container, key)
				equal(t, "ETag", etag, statestore.ETag(there.ETag))
				equal(t, "attempts", s.panel.Count(blob.Service, blob.PutBlob), 2)
			})
		})
	}
}

func TestAnothersWriteBetweenTwoAttemptsIsAConflict(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		s.inject(t, blob.PutBlob, faults.Fault{Mode: faults.ResetBefore, Then: func() { s.put(t, key, "theirs") }})
		_, err := s.Put(t.Context(), key, []byte("mine"), statestore.Unchanged(""))
		wantError(t, "the write", err, statestore.ErrConflict)
	})
}

func TestEveryCallHasTwoAttemptsAndNoMore(t *testing.T) {
	for operation, call := range calls {
		t.Run(operation, func(t *testing.T) {
			story(t, func(t *testing.T, s *fixture) {
				s.put(t, key, "value")
				s.inject(t, operation, faults.Fault{Mode: faults.Status, Status: 503})
				noError(t, call(t.Context(), s.Store))
				equal(t, "attempts", s.panel.Count(blob.Service, operation), 2)

				s.put(t, key, "value")
				s.panel.ResetCounts()
				s.inject(t, operation, faults.Fault{Mode: faults.HangBefore, Times: -1})
				from := time.Now()
				wantClass(t, call(t.Context(), s.Store), rotation.Transient, "state-unavailable")
				equal(t, "attempts", s.panel.Count(blob.Service, operation), 2)
				if took := time.Since(from); took > statestore.CallLimit {
					t.Errorf("the call took %s, want at most %s", took, statestore.CallLimit)
				}
			})
		})
	}
}

// calls are one of each operation.
var calls = map[string]func(context.Context, *statestore.Store) error{
	blob.GetBlob: func(ctx context.Context, s *statestore.Store) error {
		_, err := s.Get(ctx, key)
		return err
	},
	blob.PutBlob: func(ctx context.Context, s *statestore.Store) error {
		_, err := s.Put(ctx, key, []byte("value"), statestore.Whatever)
		return err
	},
	blob.DeleteBlob: func(ctx context.Context, s *statestore.Store) error {
		return s.Delete(ctx, key, statestore.Whatever)
	},
	blob.ListBlobs: func(ctx context.Context, s *statestore.Store) error {
		_, _, err := s.List(ctx, "sweeps/")
		return err
	},
}

func TestARefusalHasItsClassAndSaysWhatToDo(t *testing.T) {
	for _, c := range []struct {
		fault faults.Fault
		class rotation.Class
		code  string
		says  string
	}{
		{refusal(403, "AuthorizationPermissionMismatch"), rotation.Configuration, "state-forbidden",
			"role Storage Blob Data Contributor"},
		{refusal(403, "AuthorizationFailure"), rotation.Configuration, "state-network", "network rules"},
		{refusal(403, "AuthenticationFailed"), rotation.Configuration, "state-unauthorized", "same tenant"},
		{refusal(403, "AccountIsDisabled"), rotation.Configuration, "state-forbidden", "AccountIsDisabled"},
		{refusal(404, "ContainerNotFound"), rotation.Configuration, "state-container", "create it"},
		{refusal(409, "ContainerBeingDeleted"), rotation.Configuration, "state-container", "create it"},
		{refusal(404, "ResourceNotFound"), rotation.Configuration, "state-url", "STATE_URL"},
		{faults.Fault{Mode: faults.Status, Status: 404, Body: "canary"}, rotation.Configuration, "state-url",
			"STATE_URL"},
		{refusal(400, "InvalidHeaderValue"), rotation.Configuration, "state-rejected", "InvalidHeaderValue"},
		{refusal(412, "LeaseIdMissing"), rotation.Configuration, "state-rejected", "LeaseIdMissing"},
		{refusal(501, "NotImplemented"), rotation.Configuration, "state-rejected", "NotImplemented"},
		{refusal(503, "ServerBusy"), rotation.Transient, "state-busy", "pause"},
		{refusal(429, "TooManyRequests"), rotation.Transient, "state-busy", "pause"},
		{refusal(500, "InternalError"), rotation.Transient, "state-unavailable", "Service Health"},
		{refusal(500, "canary words"), rotation.Transient, "state-unavailable", "(500)"},
		{faults.Fault{Mode: faults.ResetBefore}, rotation.Transient, "state-unavailable", "cannot be reached"},
	} {
		t.Run(fmt.Sprint(c.fault.Mode, c.fault.Status, c.fault.Header["X-Ms-Error-Code"]), func(t *testing.T) {
			for operation, call := range calls {
				story(t, func(t *testing.T, s *fixture) {
					s.put(t, key, "value")
					c.fault.Times = -1
					s.inject(t, operation, c.fault)
					e := wantClass(t, call(t.Context(), s.Store), c.class, c.code)
					if !strings.Contains(e.Message, c.says) {
						t.Errorf("%s: the message %q does not say %q", operation, e.Message, c.says)
					}
					if c.fault.Header != nil {
						equal(t, operation+": activity", e.ActivityID, "request-1")
					}
				})
			}
		})
	}
}

func TestAPauseThatTheServiceAsksForIsPassedOn(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		f := refusal(503, "ServerBusy")
		f.Header["Retry-After"] = "30"
		s.inject(t, blob.GetBlob, f)
		from := time.Now()
		_, err := s.Get(t.Context(), key)
		equal(t, "after", wantClass(t, err, rotation.Transient, "state-busy").After, 30*time.Second)
		equal(t, "nothing waits for it", time.Since(from), 0)
	})
}

func TestATokenThatIsNotAcceptedIsOneOfTheConfiguration(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		_, err := s.Get(t.Context(), key)
		wantClass(t, err, rotation.Configuration, "state-unauthorized")
		_, _, err = s.List(t.Context(), "failing/")
		wantClass(t, err, rotation.Configuration, "state-unauthorized")
	}, func(c *blob.Config, _ *statestore.Config) { c.Verify = func(string) error { return errors.New("no") } })
	story(t, func(t *testing.T, s *fixture) {
		_, err := s.Get(t.Context(), key)
		wantClass(t, err, rotation.Configuration, "state-forbidden")
	}, func(c *blob.Config, _ *statestore.Config) { c.Verify = func(string) error { return blob.ErrNoRole } })
}

func TestAMissingContainerIsNotAMissingBlob(t *testing.T) {
	for operation, call := range calls {
		story(t, func(t *testing.T, s *fixture) {
			s.account.DeleteContainer(container)
			err := call(t.Context(), s.Store)
			wantClass(t, err, rotation.Configuration, "state-container")
			if errors.Is(err, statestore.ErrNotFound) {
				t.Errorf("%s: it says that there is no blob", operation)
			}
		})
	}
}

type unretriable struct{ error }

func (unretriable) NonRetriable() {}

func TestWithoutATokenTheReasonIsTold(t *testing.T) {
	answer := func(status int) error {
		return &azidentity.AuthenticationFailedError{RawResponse: &http.Response{StatusCode: status, Body: http.NoBody,
			Request: &http.Request{}}}
	}
	for name, c := range map[string]struct {
		err   error
		class rotation.Class
	}{
		"the identity is not assigned": {answer(400), rotation.Configuration},
		"the endpoint is throttled":    {answer(429), rotation.Transient},
		"the endpoint fails":           {answer(500), rotation.Transient},
		"there is no identity":         {unretriable{errors.New("canary")}, rotation.Configuration},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, s *fixture) {
				_, err := s.Get(t.Context(), key)
				wantClass(t, err, c.class, "state-credential")
			}, func(_ *blob.Config, o *statestore.Config) { o.Credential = credential{c.err} })
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

func transport(f roundTrip) option {
	return func(_ *blob.Config, o *statestore.Config) { o.ClientOptions.Transport = f }
}

func TestAnAccountThatDoesNotExistIsAWrongSetting(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		_, err := s.Get(t.Context(), key)
		e := wantClass(t, err, rotation.Configuration, "state-url")
		if !strings.Contains(e.Message, "STATE_URL") {
			t.Errorf("the message %q does not name the setting", e.Message)
		}
	}, transport(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	}))
}

func TestAnAnswerWithoutAnETagIsNone(t *testing.T) {
	bare := func(r *http.Request) (*http.Response, error) {
		status := http.StatusOK
		if r.Method == http.MethodPut {
			status = http.StatusCreated
		}
		return &http.Response{StatusCode: status, Header: http.Header{}, Request: r,
			Body: http.NoBody, ContentLength: 0}, nil
	}
	story(t, func(t *testing.T, s *fixture) {
		_, err := s.Get(t.Context(), key)
		wantClass(t, err, rotation.Transient, "state-answer")
		_, err = s.Put(t.Context(), key, nil, statestore.Whatever)
		wantClass(t, err, rotation.Transient, "state-answer")
		_, _, err = s.List(t.Context(), "failing/")
		wantClass(t, err, rotation.Transient, "state-answer")
	}, transport(bare))
}

func TestACallerThatGoesAwayIsNotHeldUp(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		s.inject(t, blob.GetBlob, faults.Fault{Mode: faults.HangBefore})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		from := time.Now()
		_, err := s.Get(ctx, key)
		wantClass(t, err, rotation.Transient, "state-unavailable")
		wantError(t, "the call", err, context.Canceled)
		equal(t, "it took", time.Since(from), time.Second)
	})
}

func TestABlobThatIsTooLargeIsNeitherSentNorRead(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		value := bytes.Repeat([]byte("x"), statestore.MaxBytes)
		_, err := s.Put(t.Context(), key, value, statestore.Whatever)
		noError(t, err)
		_, err = s.Get(t.Context(), key)
		noError(t, err)

		value = append(value, 'x')
		s.panel.ResetCounts()
		_, err = s.Put(t.Context(), key, value, statestore.Whatever)
		wantClass(t, err, rotation.Configuration, "state-size")
		equal(t, "calls", len(s.panel.Counts()), 0)

		s.put(t, key, string(value))
		_, err = s.Get(t.Context(), key)
		wantClass(t, err, rotation.Configuration, "state-size")
	})
}

// Where the length is not said, reading ends at the limit.
func TestABlobOfUnknownLengthIsReadUpToTheLimit(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		_, err := s.Get(t.Context(), key)
		wantClass(t, err, rotation.Configuration, "state-size")
	}, transport(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{"Etag": {`"1"`}}, Request: r, ContentLength: -1,
			Body: endless{}}, nil
	}))
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (endless) Close() error               { return nil }

func TestTheLimitCanBeAnother(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		_, err := s.Put(t.Context(), key, []byte("12345"), statestore.Whatever)
		wantClass(t, err, rotation.Configuration, "state-size")
		_, err = s.Put(t.Context(), key, []byte("1234"), statestore.Whatever)
		noError(t, err)
	}, func(_ *blob.Config, o *statestore.Config) { o.MaxBytes = 4 })
}

func TestAKeyThatIsNoneIsNotSent(t *testing.T) {
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a b", "a?b", "a%2fb", "a.", "Ä",
		strings.Repeat("a", 300), "a/b/c/d/e", "a\nb"} {
		story(t, func(t *testing.T, s *fixture) {
			_, err := s.Get(t.Context(), key)
			wantClass(t, err, rotation.Configuration, "state-key")
			_, err = s.Put(t.Context(), key, nil, statestore.Whatever)
			wantClass(t, err, rotation.Configuration, "state-key")
			wantClass(t, s.Delete(t.Context(), key, statestore.Whatever), rotation.Configuration, "state-key")
			equal(t, "calls", len(s.panel.Counts()), 0)
		})
	}
}

func TestAListIsReadPageByPage(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		for i := range 7 {
			s.put(t, fmt.Sprintf("failing/pat-%d.json", i), "{}")
		}
		s.put(t, "acts/other.json", "{}")
		s.put(t, "told/other.json", "{}")
		time.Sleep(time.Hour)
		entries, more, err := s.List(t.Context(), "failing/")
		noError(t, err)
		equal(t, "more", more, false)
		equal(t, "entries", len(entries), 7)
		for i, e := range entries {
			equal(t, "key", e.Key, fmt.Sprintf("failing/pat-%d.json", i))
			equal(t, "size", e.Size, 2)
			equalTimes(t, "modified", e.Modified, time.Now().Add(-time.Hour))
			// An ETag of a list is one to write by.
			_, err := s.Put(t.Context(), e.Key, []byte("[]"), statestore.Unchanged(e.ETag))
			noError(t, err)
		}
		equal(t, "calls for the list", s.panel.Count(blob.Service, blob.ListBlobs), 4) // an empty page, 3, 3, 1
	}, func(c *blob.Config, _ *statestore.Config) { c.PageSize, c.EmptyPages = 3, true })
}

func TestAListIsBounded(t *testing.T) {
	story(t, func(t *testing.T, s *fixture) {
		for i := range statestore.MaxListed + 1 {
			s.put(t, fmt.Sprintf("told/%04d.json", i), "{}")
		}
		entries, more, err := s.List(t.Context(), "told/")
		noError(t, err)
		equal(t, "entries", len(entries), statestore.MaxListed)
		equal(t, "more", more, true)
	}, func(c *blob.Config, _ *statestore.Config) { c.PageSize = 400 })
	// Pages that never end.
	story(t, func(t *testing.T, s *fixture) {
		entries, more, err := s.List(t.Context(), "told/")
		noError(t, err)
		equal(t, "entries", len(entries), 0)
		equal(t, "more", more, true)
	}, transport(func(r *http.Request) (*http.Response, error) {
		body := bytes.NewBufferString("<EnumerationResults><Blobs/><NextMarker>next</NextMarker></EnumerationResults>")
		return &http.Response{StatusCode: 200, Header: http.Header{}, Request: r, Body: readCloser{body}}, nil
	}))
}

type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }

func TestAnAddressThatIsNoContainerIsRefused(t *testing.T) {
	for _, text := range []string{
		"http://a.blob.core.windows.net/patrol-state", "https://a.blob.core.windows.net", "https:///patrol-state",
		"https://a.blob.core.windows.net/", "https://a.blob.core.windows.net/a/b", "https://user@a/patrol-state",
		"https://a/patrol-state?sv=2023&sig=canary", "https://a/patrol-state#x", "https://a/Patrol-State",
		"https://a/patrol--state", "https://a/ab", "https://a/$root", "https://a/-state", "https://a/state-",
		"https://a/" + strings.Repeat("a", 64),
	} {
		_, err := statestore.New(statestore.Config{URL: address(t, text), Credential: credential{}})
		wantClass(t, err, rotation.Configuration, "state-url")
	}
	for _, text := range []string{
		"https://a.blob.core.windows.net/patrol-state", "https://a/patrol-state/", "https://127.0.0.1:1234/abc",
		"https://a/" + strings.Repeat("a", 63),
	} {
		if _, err := statestore.New(statestore.Config{URL: address(t, text), Credential: credential{}}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	_, err := statestore.New(statestore.Config{URL: address(t, "https://a/patrol-state")})
	wantClass(t, err, rotation.Configuration, "state-credential")
	_, err = statestore.New(statestore.Config{URL: address(t, "https://a/b"), Setting: "PATROL_MANIFEST"})
	if e := wantClass(t, err, rotation.Configuration, "state-url"); !strings.Contains(e.Message, "PATROL_MANIFEST") {
		t.Errorf("the message %q does not name the setting", e.Message)
	}
}

func TestAStoreThatIsOffSaysSo(t *testing.T) {
	s, err := statestore.New(statestore.Config{})
	noError(t, err)
	if s != nil {
		t.Fatal("without an address there is a store")
	}
	ctx := t.Context()
	off := map[string]error{}
	for operation, call := range calls {
		off[operation] = call(ctx, s)
	}
	_, off["GetUnless"] = s.GetUnless(ctx, key, `"1"`)
	_, _, off["LastSweep"] = s.LastSweep(ctx)
	_, off["PutLastSweep"] = s.PutLastSweep(ctx, statestore.LastSweep{At: time.Now()}, statestore.Whatever)
	_, _, off["Failing"] = s.Failing(ctx, "a-pat")
	_, off["PutFailing"] = s.PutFailing(ctx, statestore.Failing{PAT: "a-pat", At: time.Now()}, statestore.Whatever)
	off["DropFailing"] = s.DropFailing(ctx, "a-pat", statestore.Whatever)
	_, _, off["AllFailing"] = s.AllFailing(ctx)
	_, _, off["Notice"] = s.Notice(ctx, "key")
	_, off["PutNotice"] = s.PutNotice(ctx, statestore.Notice{Key: "key", At: time.Now()}, statestore.Whatever)
	off["DropNotice"] = s.DropNotice(ctx, "key", statestore.Whatever)
	_, _, off["AllNotices"] = s.AllNotices(ctx)
	_, off["PruneNotices"] = s.PruneNotices(ctx, time.Now())
	_, off["ClaimAct"] = s.ClaimAct(ctx, statestore.Act{})
	_, off["FinishAct"] = s.FinishAct(ctx, statestore.Act{}, "")
	off["DropAct"] = s.DropAct(ctx, "key", "")
	_, off["PruneActs"] = s.PruneActs(ctx, time.Now())
	for name, err := range off {
		wantError(t, name, err, statestore.ErrOff)
	}
	wantClass(t, statestore.ErrOff, rotation.Configuration, "state-off")
}

// The listener is the process's: this test must not run beside others.
func TestNothingPrintsABlobOrAToken(t *testing.T) {
	var mu sync.Mutex
	var lines strings.Builder
	log.SetListener(func(e log.Event, text string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&lines, e, text)
	})
	defer log.SetListener(nil)
	include := func(_ *blob.Config, o *statestore.Config) { o.ClientOptions.Logging.IncludeBody = true }
	story(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		_, err := s.Put(ctx, key, []byte(`"canary-written"`), statestore.Whatever)
		noError(t, err)
		s.put(t, key, `"canary-there"`)
		_, err = s.Get(ctx, key)
		noError(t, err)
		_, _, err = s.LastSweep(ctx)
		wantClass(t, err, rotation.Configuration, "state-content")
		_, _, err = s.List(ctx, "sweeps/") // its body is of a type that the SDK would log
		noError(t, err)
		for operation, call := range calls {
			s.inject(t, operation, refusal(403, "AuthorizationFailure"))
			wantClass(t, call(ctx, s.Store), rotation.Configuration, "state-network")
			s.inject(t, operation, faults.Fault{Mode: faults.ResetAfter, Times: 2})
			_ = call(ctx, s.Store)
		}
		synctest.Wait()
	}, include)
	mu.Lock()
	defer mu.Unlock()
	if lines.Len() == 0 {
		t.Fatal("the SDK has logged nothing: this test would hold whatever it logs")
	}
	for line := range strings.Lines(lines.String()) {
		// The SDK logs an answer's error with its body; that of the service says no more
		// than its code and a text.
		for _, never := range []string{"canary-written", "canary-there", bearer, "EnumerationResults"} {
			if strings.Contains(line, never) {
				t.Errorf("the log has %q", line)
			}
		}
	}
}
