package faults_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

// service is a counter of effects behind a panel, on a network without sockets.
type service struct {
	panel   *faults.Injector
	effects int
	client  *http.Client
	close   func()
}

func start(t *testing.T) *service {
	t.Helper()
	s := &service{panel: &faults.Injector{}}
	var network memnet.Network
	l, err := network.Listen("service.test:80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.panel.Wrap("svc", func(r *http.Request) string {
		return strings.Trim(r.URL.Path,
			"/")
	},
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			s.effects++
			_, _ = io.WriteString(w, "done")
		}))}
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
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := start(t)
				defer s.close()
				if err := s.panel.Inject(tc.fault); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				status, _, err := s.call(ctx, "act")
				took := time.Since(began)
				synctest.Wait()
				if status != tc.status || (err != nil) != (tc.status == 0) || s.effects != tc.effects ||
					took != tc.took {
					t.Errorf("status %d, error %v, %d effects after %s; want status %d, %d effects after %s", status,
						err, s.effects, took, tc.status, tc.effects, tc.took)
				}
				if n := s.panel.Count("svc", "act"); n != 1 {
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
		if err := s.panel.Inject(faults.Fault{Service: "svc", Operation: "a", Skip: 1, Times: 2, Mode: faults.Status,
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
		want := []int{200, 200, 500, 500, 200}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("statuses %v, want %v", got, want)
			}
		}
	})
}

func TestAHookSeesEveryCallByNumber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		defer s.close()
		carried := 0
		s.panel.OnCall(func(n int, c faults.Call) *faults.Fault {
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

func TestTheControlAPICountsAndInjects(t *testing.T) {
	t.Parallel()
	var p faults.Injector
	do := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	if f := p.Enter(faults.Call{Service: "a", Operation: "b"}); f != nil {
		t.Fatalf("a fault without an order: %+v", f)
	}
	if code, body := do("GET", "/calls", ""); code != 200 || body != `{"a":{"b":1}}`+"\n" {
		t.Errorf("GET /calls: %d %s", code, body)
	}
	if code,
		_ := do("POST", "/faults",
		`[{"service":"a","mode":"reset-before"},{"service":"a","mode":"status","status":429,"header":{"Retry-After":"7"}}]`); code != 204 {
		t.Errorf("POST /faults: %d", code)
	}
	if f := p.Enter(faults.Call{Service: "a", Operation: "b"}); f == nil || f.Mode != faults.ResetBefore {
		t.Errorf("first fault: %+v", f)
	}
	if f := p.Enter(faults.Call{Service: "a", Operation: "b"}); f == nil || f.Header["Retry-After"] != "7" {
		t.Errorf("second fault: %+v", f)
	}
	for _, bad := range []string{`{"mode":"explode"}`, `{"mode":"status"}`, `{"mode":"slow"}`, `nonsense`,
		`[{"mode":"reset-before"},{"mode":"no"}]`} {
		if code, _ := do("POST", "/faults", bad); code != 400 {
			t.Errorf("POST /faults %s: %d, want 400", bad, code)
		}
	}
	if f := p.Enter(faults.Call{Service: "a", Operation: "b"}); f != nil {
		t.Errorf("a refused order left a fault: %+v", f)
	}
	do("DELETE", "/calls", "")
	if _, body := do("GET", "/calls", ""); body != "{}\n" {
		t.Errorf("after DELETE /calls: %s", body)
	}
	if code, _ := do("GET", "/other", ""); code != 404 {
		t.Errorf("unknown path: %d", code)
	}
}

func TestNobodyAnswersWhereNobodyListens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.close()
		if _, _, err := s.call(t.Context(), "x"); err == nil || errors.Is(err, context.Canceled) ||
			!strings.Contains(err.Error(), "refused") {
			t.Errorf("error %v, want a refused connection", err)
		}
	})
}
