package customhandler_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

// served runs a Mux behind its own server, in a bubble.
func served(t *testing.T, f func(*testing.T, *memnet.Network, *customhandler.Mux)) {
	synctest.Test(t, func(t *testing.T) {
		network, mux := &memnet.Network{}, customhandler.New(customhandler.Config{
			Hosts: []string{"patrol.example"}})
		l, err := network.Listen(handlerAddress)
		if err != nil {
			t.Fatal(err)
		}
		server := mux.Server(handlerAddress)
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }()
		defer func() {
			_ = server.Close()
			<-done
			time.Sleep(time.Second) // net/http lingers before it closes what it has refused
		}()
		f(t, network, mux)
	})
}

const handlerAddress = "127.0.0.1:40001"

// noAnswer stands for a connection that was closed without one.
const noAnswer = 0

// say sends raw bytes and gives the status of the answer and how long it took.
func say(t *testing.T, network *memnet.Network, text string) (status int, took time.Duration) {
	t.Helper()
	conn, err := network.Dial(t.Context(), "tcp", handlerAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	began := time.Now()
	go func() { _, _ = io.WriteString(conn, text) }()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return noAnswer, time.Since(began)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, time.Since(began)
}

func checkWithinAMinute(t *testing.T, took time.Duration) {
	t.Helper()
	if took > time.Minute {
		t.Errorf("given up after %s, want within a minute", took)
	}
}

func TestABodyThatNeverComesIsGivenUp(t *testing.T) {
	served(t, func(t *testing.T, network *memnet.Network, mux *customhandler.Mux) {
		mux.HandleTimer("CheckExpiry", func(context.Context, customhandler.Timer) error {
			t.Error("half an invocation was worked on")
			return nil
		})
		status, took := say(t, network, "POST /CheckExpiry HTTP/1.1\r\nHost: 127.0.0.1:40001\r\n"+
			"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		check(t, "status", status, http.StatusBadRequest)
		checkWithinAMinute(t, took)
	})
}

// A page in somebody's browser can have this port called under another name, without a key.
func TestARequestForAnotherHostIsRefused(t *testing.T) {
	for host, want := range map[string]int{
		"127.0.0.1:40001": 200, "evil.example": 421, "evil.example:40001": 421, "localhost:40001": 421,
		"Patrol.Example": 200, "patrol.example:443": 200, "patrol.example.": 200, "patrol.example.evil.example": 421,
		"10.0.0.1:40001": 421,
	} {
		served(t, func(t *testing.T, network *memnet.Network, mux *customhandler.Mux) {
			worked := 0
			mux.HandleTimer("CheckExpiry", func(context.Context, customhandler.Timer) error { worked++; return nil })
			mux.HandleHTTP("/api/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { worked++ }))
			status, _ := say(t, network, "GET /api/x HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			check(t, host+": status of an HTTP function", status, want)
			status, _ = say(t, network, "POST /CheckExpiry HTTP/1.1\r\nHost: "+host+"\r\n"+
				"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			if want == http.StatusMisdirectedRequest {
				check(t, host+": status of an invocation", status, want)
				check(t, host+": work done", worked, 0)
			}
		})
	}
}

func TestABrowserInvokesNothing(t *testing.T) {
	served(t, func(t *testing.T, network *memnet.Network, mux *customhandler.Mux) {
		mux.HandleTimer("CheckExpiry", func(context.Context, customhandler.Timer) error {
			t.Error("it was invoked")
			return nil
		})
		status, _ := say(t, network, "POST /CheckExpiry HTTP/1.1\r\nHost: 127.0.0.1:40001\r\n"+
			"Sec-Fetch-Site: cross-site\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		check(t, "status", status, http.StatusForbidden)
	})
}

func TestHeadersThatNeverEndAreGivenUp(t *testing.T) {
	served(t, func(t *testing.T, network *memnet.Network, _ *customhandler.Mux) {
		status, took := say(t, network, "POST /CheckExpiry HTTP/1.1\r\nHost: 127.0.0.1:40001\r\nX-Slow: ")
		check(t, "status", status, noAnswer)
		checkWithinAMinute(t, took)
	})
}

func TestHeadersThatAreTooLongAreRefused(t *testing.T) {
	served(t, func(t *testing.T, network *memnet.Network, _ *customhandler.Mux) {
		long := strings.Repeat("a", 256<<10)
		status, _ := say(t, network, "GET /api/x HTTP/1.1\r\nHost: 127.0.0.1:40001\r\nX-Long: "+long+"\r\n\r\n")
		check(t, "status", status, http.StatusRequestHeaderFieldsTooLarge)
	})
}

// The time-out of the body must not go on while the invocation works.
func TestALongInvocationIsNotCutOff(t *testing.T) {
	served(t, func(t *testing.T, network *memnet.Network, mux *customhandler.Mux) {
		mux.HandleHTTP("/api/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				t.Errorf("reading the body: %v", err)
			}
			select {
			case <-time.After(3 * time.Minute):
			case <-r.Context().Done():
				t.Error("the request was cancelled while it was worked on")
			}
			w.WriteHeader(http.StatusAccepted)
		}))
		status, took := say(t, network, "POST /api/check HTTP/1.1\r\nHost: 127.0.0.1:40001\r\n"+
			"Content-Length: 2\r\n\r\n{}")
		check(t, "status", status, http.StatusAccepted)
		check(t, "time taken", took, 3*time.Minute)
	})
}
