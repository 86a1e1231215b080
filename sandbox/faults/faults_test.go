package faults_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

// service is a counter of effects behind an injector, on a network without sockets.
type service struct {
	injector *faults.Injector
	effects  int
	client   *http.Client
	close    func()
}

func start(t *testing.T) *service {
	t.Helper()
	s := &service{injector: &faults.Injector{}}
	var network memnet.Network
	l, err := network.Listen("service.test:80")
	if err != nil {
		t.Fatal(err)
	}
	operation := func(r *http.Request) string { return strings.Trim(r.URL.Path, "/") }
	effect := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.effects++
		_, _ = io.WriteString(w, "done")
	})
	server := &http.Server{Handler: s.injector.Wrap("svc", operation, effect)}
	go func() { _ = server.Serve(l) }()
	transport := network.Transport()
	s.client = &http.Client{Transport: transport}
	s.close = func() {
		transport.CloseIdleConnections()
		_ = server.Close()
	}
	return s
}

func (s *service) call(ctx context.Context, op string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://service.test/"+op, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestEachModeShowsAsItSays(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		fault   faults.Fault
		status  int // 0: the call fails
		effects int
		took    time.Duration
	}{
		{"no fault", faults.Fault{Operation: "other", Mode: faults.ResetBefore}, 200, 1, 0},
		{"status", faults.Fault{Mode: faults.Status, Status: 503, Body: "busy"}, 503, 0, 0},
		{"status after", faults.Fault{Mode: faults.StatusAfter, Status: 500}, 500, 1, 0},
		{"reset before", faults.Fault{Mode: faults.ResetBefore}, 0, 0, 0},
		{"reset after", faults.Fault{Mode: faults.ResetAfter}, 0, 1, 0},
		{"hang before", faults.Fault{Mode: faults.HangBefore}, 0, 0, 10 * time.Second},
		{"hang after, for a while", faults.Fault{Mode: faults.HangAfter, Delay: 3 * time.Second}, 0, 1,
			3 * time.Second},
		{"slow", faults.Fault{Mode: faults.Slow, Delay: 2 * time.Second}, 200, 1, 2 * time.Second},
		{"altered", faults.Fault{Mode: faults.Altered, Alter: bytes.ToUpper}, 200, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := start(t)
				defer s.close()
				if err := s.injector.Inject(tc.fault); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				status, _, err := s.call(ctx, "act")
				took := time.Since(began)
				synctest.Wait()
				if status != tc.status {
					t.Errorf("status %d, want %d", status, tc.status)
				}
				if failed := err != nil; failed != (tc.status == 0) {
					t.Errorf("error %v, want one: %t", err, tc.status == 0)
				}
				if s.effects != tc.effects {
					t.Errorf("%d effects, want %d", s.effects, tc.effects)
				}
				if took != tc.took {
					t.Errorf("it took %s, want %s", took, tc.took)
				}
				if n := s.injector.Count("svc", "act"); n != 1 {
					t.Errorf("counted %d calls, want 1", n)
				}
			})
		})
	}
}

func TestAFaultHitsTheCallsThatItNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		defer s.close()
		// The second and third call of "a" fail, and nothing else.
		if err := s.injector.Inject(faults.Fault{Service: "svc", Operation: "a", Skip: 1, Times: 2, Mode: faults.Status,
			Status: 500}); err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, op := range []string{"a", "b", "a", "a", "a"} {
			status, _, err := s.call(t.Context(), op)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, status)
		}
		if want := []int{200, 200, 500, 500, 200}; !slices.Equal(got, want) {
			t.Errorf("statuses %v, want %v", got, want)
		}
	})
}

func TestAHookSeesEveryCallByNumber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		defer s.close()
		carried := 0
		s.injector.OnCall(func(n int, c faults.Call) *faults.Fault {
			if n == 2 {
				return &faults.Fault{Mode: faults.ResetAfter, Then: func() { carried += s.effects }}
			}
			return nil
		})
		for i := 1; i <= 3; i++ {
			if _, _, err := s.call(t.Context(), "x"); (err != nil) != (i == 2) {
				t.Errorf("call %d: %v", i, err)
			}
		}
		if carried != 2 {
			t.Errorf("the fault was carried out after %d effects, want after the second", carried)
		}
	})
}

func TestAnAlteredAnswerKeepsItsStatusAndHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		defer s.close()
		err := s.injector.Inject(faults.Fault{Mode: faults.Altered, Alter: func(body []byte) []byte {
			return append(body, " and more"...)
		}})
		if err != nil {
			t.Fatal(err)
		}
		status, body, err := s.call(t.Context(), "x")
		if err != nil || status != 200 || body != "done and more" {
			t.Errorf("answer %d %q, error %v; want 200 and the altered body", status, body, err)
		}
	})
}

func TestTheControlAPICountsAndInjects(t *testing.T) {
	t.Parallel()
	var injector faults.Injector
	do := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		injector.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	if f := injector.Enter("", faults.Call{Service: "a", Operation: "b"}); f != nil {
		t.Fatalf("a fault that nobody injected: %+v", f)
	}
	if code, body := do("GET", "/calls", ""); code != 200 || body != `{"a":{"b":1}}`+"\n" {
		t.Errorf("GET /calls: %d %s, want 200 and one call of a b", code, body)
	}
	const two = `[{"service":"a","mode":"reset-before"},
		{"service":"a","mode":"status","status":429,"header":{"Retry-After":"7"}}]`
	if code, _ := do("POST", "/faults", two); code != 204 {
		t.Errorf("POST /faults: %d, want 204", code)
	}
	if f := injector.Enter("", faults.Call{Service: "a", Operation: "b"}); f == nil || f.Mode != faults.ResetBefore {
		t.Errorf("first fault: %+v", f)
	}
	if f := injector.Enter("", faults.Call{Service: "a", Operation: "b"}); f == nil || f.Header["Retry-After"] != "7" {
		t.Errorf("second fault: %+v", f)
	}
	for _, bad := range []string{`{"mode":"explode"}`, `{"mode":"status"}`, `{"mode":"slow"}`, `{"mode":"altered"}`,
		`nonsense`,
		`[{"mode":"reset-before"},{"mode":"no"}]`} {
		if code, _ := do("POST", "/faults", bad); code != 400 {
			t.Errorf("POST /faults %s: %d, want 400", bad, code)
		}
	}
	if f := injector.Enter("", faults.Call{Service: "a", Operation: "b"}); f != nil {
		t.Errorf("a refused request left a fault: %+v", f)
	}
	do("DELETE", "/calls", "")
	if _, body := do("GET", "/calls", ""); body != "{}\n" {
		t.Errorf("after DELETE /calls: %s, want none", body)
	}
	if code, _ := do("GET", "/other", ""); code != 404 {
		t.Errorf("unknown path: %d, want 404", code)
	}
}

func TestNobodyAnswersWhereNobodyListens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.close()
		_, _, err := s.call(t.Context(), "x")
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("error %v, want a refused connection", err)
		}
		if errors.Is(err, context.Canceled) {
			t.Error("the call was cancelled, want it refused")
		}
	})
}
