package statestore_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/statestore"
)

// recoded checks that what is read of a blob is written and read again without a change,
// and that a failure is one of the store's own.
func recoded[T any](t *testing.T, value []byte, recode func([]byte) (T, []byte, error)) {
	t.Helper()
	_, first, err := recode(value)
	if err != nil {
		if e := rotation.AsError(err); e == nil || e.Code != "state-content" {
			t.Fatalf("error %v, want one with the code state-content", err)
		}
		return
	}
	_, second, err := recode(first)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("written as %s and then as %s", first, second)
	}
}

func FuzzLastSweep(f *testing.F) {
	seed(f, sweep())
	f.Fuzz(func(t *testing.T, value []byte) {
		recoded(t, value, func(b []byte) (statestore.LastSweep, []byte, error) {
			return statestore.Recode[statestore.LastSweep]("sweeps/last.json", b)
		})
	})
}

func FuzzFailing(f *testing.F) {
	seed(f, failing("a-pat"))
	f.Fuzz(func(t *testing.T, value []byte) {
		recoded(t, value, func(b []byte) (statestore.Failing, []byte, error) {
			return statestore.Recode[statestore.Failing]("failing/a-pat.json", b)
		})
	})
}

func FuzzNotice(f *testing.F) {
	n := statestore.Notice{Key: "key", At: sweep().At, Since: sweep().At, PATs: 1}
	seed(f, n)
	f.Fuzz(func(t *testing.T, value []byte) {
		recoded(t, value, func(b []byte) (statestore.Notice, []byte, error) {
			return statestore.Recode[statestore.Notice](statestore.Key(n), b)
		})
	})
}

func FuzzAct(f *testing.F) {
	a := act("p-1")
	a.Status, a.Body = 202, []byte(`{"a":[1,2]}`)
	seed(f, a)
	f.Fuzz(func(t *testing.T, value []byte) {
		recoded(t, value, func(b []byte) (statestore.Act, []byte, error) {
			return statestore.Recode[statestore.Act](statestore.Key(a), b)
		})
	})
}

func seed(f *testing.F, record any) {
	b, err := json.Marshal(record)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Add([]byte("null"))
}

func FuzzListPage(f *testing.F) {
	f.Add([]byte("\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs><Blob><Name>a</Name>" +
		"<Properties><Etag>0x1</Etag><Content-Length>1</Content-Length></Properties></Blob></Blobs><NextMarker/>" +
		"</EnumerationResults>"))
	f.Fuzz(func(_ *testing.T, body []byte) { _, _ = statestore.ReadPage(body) })
}
