package chromium_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/azure-patrol/patrol/sandbox/memnet"
	"github.com/azure-patrol/patrol/tests/chromium"
)

// listen takes a free port; the bubble serves it.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestABrowserSeesAServerInABubbleWhoseTimeStandsStill(t *testing.T) {
	l := listen(t)
	b := chromium.Start(t, chromium.Options{Hosts: map[string]string{"app.test:80": l.Addr().String()}})
	synctest.Test(t, func(t *testing.T) {
		network := &memnet.Network{}
		inner, err := network.Listen("app.test:80")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "<html><title>t</title><p id=p>%s</p>", time.Now().UTC().Format(time.RFC3339))
		})}
		go func() { _ = server.Serve(inner) }()
		defer func() { _ = server.Close() }()
		stop := chromium.Bridge(l, func(ctx context.Context) (net.Conn, error) {
			return network.Dial(ctx, "tcp", "app.test:80")
		})

		began := time.Now()
		if err := b.Run(chromedp.Navigate("http://app.test/")); err != nil {
			t.Fatal(err)
		}
		text, err := chromium.Get(b, chromedp.Text(chromedp.CSS("#p")))
		if err != nil {
			t.Fatal(err)
		}
		if want := began.UTC().Format(time.RFC3339); text != want {
			t.Errorf("the page shows %s, want %s", text, want)
		}
		if now := time.Now(); !now.Equal(began) {
			t.Errorf("the bubble's time is %s, want it to stand still at %s", now, began)
		}
		stop()
		time.Sleep(200 * 24 * time.Hour) // would not end while a real socket is open
	})
}
