package customhandler_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/azure-patrol/patrol/internal/customhandler"
)

func TestTheRecordedStatusIsTheOneThatTheClientGets(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		status  int
		written bool
	}{
		"nothing": {func(http.ResponseWriter, *http.Request) {}, 200, false},
		"a body":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }, 200, true},
		"a status": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, "x")
		}, 418, true},
		"a hint before the status": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
		}, 404, true},
		"a flush": {func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Errorf("flushing: %v", err)
			}
		}, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			var recorder *customhandler.StatusRecorder
			done := make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(done)
				recorder = customhandler.RecordStatus(w)
				c.handler(recorder, r)
			}))
			defer server.Close()
			answer, err := server.Client().Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
			<-done
			check(t, "the client's status", answer.StatusCode, c.status)
			check(t, "Status", recorder.Status(), c.status)
			check(t, "Written", recorder.Written(), c.written)
		})
	}
}

func TestOnlyTheFirstStatusCounts(t *testing.T) {
	recorder := customhandler.RecordStatus(httptest.NewRecorder())
	recorder.WriteHeader(http.StatusAccepted)
	recorder.WriteHeader(http.StatusInternalServerError)
	check(t, "Status", recorder.Status(), http.StatusAccepted)
}

func TestSwitchingProtocolsIsAFinalStatus(t *testing.T) {
	recorder := customhandler.RecordStatus(discardingWriter{})
	recorder.WriteHeader(http.StatusSwitchingProtocols)
	check(t, "Status", recorder.Status(), http.StatusSwitchingProtocols)
}

// discardingWriter takes 101, which httptest's recorder does not.
type discardingWriter struct{}

func (discardingWriter) Header() http.Header         { return http.Header{} }
func (discardingWriter) Write(b []byte) (int, error) { return len(b), nil }
func (discardingWriter) WriteHeader(int)             {}
