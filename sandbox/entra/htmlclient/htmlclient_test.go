package htmlclient_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

const page = `<!doctype html><!-- <form action="/no"> --><script>'<form action="/no">'</script>
<input name="outside" value="x">
<form method="POST" action="/next?a=1&amp;b=2">
<input type="hidden" name="flow" value="a&quot;b>c"> <input name='text' value='t'> <input type=checkbox name=box>
<input type="checkbox" name="ticked" checked value="yes">
<select name="user"><option>ann</option><option selected>bob &amp; co</option></select>
<select name="first"><option value="1">one<option value="2">two</select>
<textarea name="note">hello</textarea>
<button name="action" value="go">Go</button><button>nameless</button><input type="submit" name="action" value="stop">
</form>
<form action="get"></form>`

func TestFormsAreReadAsABrowserDoes(t *testing.T) {
	got := htmlclient.Forms(page)
	want := []htmlclient.Form{
		{
			Action: "/next?a=1&b=2",
			Method: "POST",
			Fields: url.Values{
				"flow":   {`a"b>c`},
				"text":   {"t"},
				"ticked": {"yes"},
				"user":   {"bob & co"},
				"first":  {"1"},
				"note":   {"hello"},
			},
			Buttons: url.Values{
				"action": {"go", "stop"},
			},
			Inputs: []string{"text", "box", "ticked", "user", "first", "note"},
		},
		{Action: "get", Method: "GET", Fields: url.Values{}, Buttons: url.Values{}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestCookiesRedirectsAndForms(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "c", Value: "v"})
		http.Redirect(w, r, "/form", http.StatusFound)
	})
	mux.HandleFunc("GET /form", func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("c")
		_, _ = fmt.Fprintf(
			w,
			`%v %v<form method="post" action="/done"><input name="a" value="1"></form>`+
				`<form action="/done"><input name="b" value="2"></form>`,
			c,
			err,
		)
	})
	mux.HandleFunc("/done", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(
			w,
			r,
			"https://elsewhere.example/?"+r.Method+"="+r.FormValue("a")+r.FormValue("b")+r.FormValue("more"),
			http.StatusSeeOther,
		)
	})
	mux.HandleFunc(
		"GET /loop",
		func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) },
	)
	srv := httptest.NewServer(mux)
	defer srv.Close()
	b := htmlclient.New(nil)
	at, err := b.Open(t.Context(), srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if at.Left() || at.URL.Path != "/form" {
		t.Fatalf("the browser is at %s (%d), want the form", at.URL, at.Status)
	}
	if !strings.HasPrefix(at.HTML, "c=v") {
		t.Errorf("the page has no cookie: %s", at.HTML)
	}
	if len(at.Forms) != 2 {
		t.Fatalf("%d forms, want 2", len(at.Forms))
	}
	for i, want := range []string{"POST=1x", "GET=2x"} {
		next, err := b.Submit(t.Context(), at, at.Forms[i], "more", "x")
		if err != nil {
			t.Fatal(err)
		}
		if !next.Left() || next.URL.Host != "elsewhere.example" {
			t.Errorf("the browser is at %s (%d), want elsewhere.example", next.URL, next.Status)
		}
		if next.URL.RawQuery != want {
			t.Errorf("query %s, want %s", next.URL.RawQuery, want)
		}
	}
	if _, err := b.Open(t.Context(), srv.URL+"/loop"); err == nil {
		t.Error("an endless redirect has ended")
	}
}

func FuzzForms(f *testing.F) {
	f.Add(page)
	f.Add(`<form><select name=x><option`)
	f.Add(`<form method=post><input name="a" value='"'><button name=b>`)
	f.Fuzz(func(t *testing.T, html string) {
		for _, form := range htmlclient.Forms(html) {
			if form.Method != http.MethodGet && form.Method != http.MethodPost {
				t.Fatalf("method %q", form.Method)
			}
			if form.Fields == nil || form.Buttons == nil {
				t.Fatalf("%+v lacks a map", form)
			}
		}
	})
}
