package customhandler_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/sandbox/pipe"
)

// served runs a Mux behind its own server, in a bubble.
func served(t *testing.T, f func(*testing.T, *pipe.Network, *customhandler.Mux)) {
	synctest.Test(t, func(t *testing.T) {
		network, mux := &pipe.Network{}, customhandler.New(customhandler.Config{})
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

// say sends raw bytes and reads one answer.
func say(t *testing.T, network *pipe.Network, text string) (*http.Response, time.Duration) {
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
		return nil, time.Since(began)
	}
	_ = resp.Body.Close()
	return resp, time.Since(began)
}

func TestABodyThatNeverComesIsGivenUp(t *testing.T) {
	served(t, func(t *testing.T, network *pipe.Network, mux *customhandler.Mux) {
		mux.HandleTimer("CheckExpiry", func(context.Context, customhandler.Timer) error {
			t.Error("half an invocation was worked on")
			return nil
		})
		resp, took := say(t, network, "POST /CheckExpiry HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		if resp == nil || resp.StatusCode != http.StatusBadRequest || took > time.Minute {
			t.Fatalf("answer %v after %s: want 400 within a minute", resp, took)
		}
	})
}

func TestHeadersThatNeverEndAreGivenUp(t *testing.T) {
	served(t, func(t *testing.T, network *pipe.Network, _ *customhandler.Mux) {
		if resp, took := say(t, network, "POST /CheckExpiry HTTP/1.1\r\nHost: h\r\nX-Slow: "); resp != nil || took > time.Minute {
			t.Fatalf("answer %v after %s: want none, and the connection closed within a minute", resp, took)
		}
	})
}

func TestHeadersThatAreTooLongAreRefused(t *testing.T) {
	served(t, func(t *testing.T, network *pipe.Network, _ *customhandler.Mux) {
		resp, _ := say(t, network, fmt.Sprintf("GET /api/x HTTP/1.1\r\nHost: h\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 256<<10)))
		if resp == nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Fatalf("answer %v: want 431", resp)
		}
	})
}

// The time-out of the body must not go on while the invocation works.
func TestALongInvocationIsNotCutOff(t *testing.T) {
	served(t, func(t *testing.T, network *pipe.Network, mux *customhandler.Mux) {
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
		resp, took := say(t, network, "POST /api/check HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
		if resp == nil || resp.StatusCode != http.StatusAccepted || took != 3*time.Minute {
			t.Fatalf("answer %v after %s: want 202 after 3 minutes", resp, took)
		}
	})
}
