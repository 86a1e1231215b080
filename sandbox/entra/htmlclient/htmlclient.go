// Package htmlclient is a browser without a screen, for tests and for the
// conformance program: it keeps cookies, follows redirects within one site and
// sends forms. Person answers the pages of the sandbox's authority with it.
//
// It runs no scripts. It must not know what the pages are for.
package htmlclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
)

const (
	maxPage      = 1 << 20
	maxRedirects = 10
)

// Browser is one browser: its cookies are its own.
type Browser struct {
	client *http.Client
}

// New makes a browser with no cookies over a transport; nil is the default one.
func New(transport http.RoundTripper) *Browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // it never fails without options
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Browser{&http.Client{Transport: transport, Jar: jar, CheckRedirect: stay}}
}

// Page is what the browser shows, or where it was sent: a redirect to another
// host is not followed, and Page.URL is its target.
type Page struct {
	URL    *url.URL
	Status int // 3xx: sent to another host
	HTML   string
	Forms  []Form
}

// Left says that the browser was sent to another host.
func (p *Page) Left() bool { return p.Status >= 300 && p.Status < 400 }

// Open shows a page.
func (b *Browser) Open(ctx context.Context, page string) (*Page, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a page: %w", err)
	}
	return b.do(r)
}

// Submit sends a form of a page. set are name and value pairs that are filled
// in or pressed; a name that the form has not is sent all the same.
func (b *Browser) Submit(ctx context.Context, p *Page, form Form, set ...string) (*Page, error) {
	fields := url.Values{}
	for k, v := range form.Fields {
		fields[k] = v
	}
	for i := 0; i+1 < len(set); i += 2 {
		fields.Set(set[i], set[i+1])
	}
	to, err := p.URL.Parse(form.Action)
	if err != nil {
		return nil, fmt.Errorf("sending a form: %w", err)
	}
	if form.Method != http.MethodPost {
		to.RawQuery = fields.Encode()
		return b.Open(ctx, to.String())
	}
	body := strings.NewReader(fields.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), body)
	if err != nil {
		return nil, fmt.Errorf("sending a form: %w", err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

func (b *Browser) do(r *http.Request) (*Page, error) {
	for range maxRedirects {
		resp, err := b.client.Do(r)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
		_ = resp.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("reading a page: %w", err)
		}
		to, err := resp.Location()
		if errors.Is(err, http.ErrNoLocation) || resp.StatusCode < 300 || resp.StatusCode > 399 {
			return &Page{URL: r.URL, Status: resp.StatusCode, HTML: string(body), Forms: Forms(string(body))}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a redirect: %w", err)
		}
		if to.Host != r.URL.Host {
			return &Page{URL: to, Status: resp.StatusCode}, nil
		}
		r, err = http.NewRequestWithContext(r.Context(), http.MethodGet, to.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("following a redirect: %w", err)
		}
	}
	return nil, errors.New("too many redirects")
}
