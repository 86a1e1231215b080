package web

import (
	"net/url"
	"testing"
	"unicode"
)

func TestTheDashboardsTemplateIsSound(t *testing.T) {
	if _, err := parseDashboard(); err != nil {
		t.Fatal(err)
	}
}

// What a form asks for is what its confirmation asks for: the hidden fields say all
// of it.
func FuzzADeedSurvivesItsOwnForm(f *testing.F) {
	f.Add("act=rotate&name=a&revokePrevious=now&reason=%00x&key=k")
	f.Add("act=extend&name=a&validTo=2027-01-31T00%3A00")
	f.Add("act=revoke&authorizationId=00000000-0000-4000-8000-00000000dead&force=true")
	f.Add("act=check&act=rotate")
	f.Fuzz(func(t *testing.T, body string) {
		form, err := url.ParseQuery(body)
		if err != nil {
			return
		}
		d, p := actionOf(form)
		if p != nil {
			if p.Type != "bad-request" {
				t.Fatalf("%+v", p)
			}
			return
		}
		again := url.Values{}
		for _, x := range d.Fields() {
			again.Add(x.Name, x.Value)
		}
		e, p := actionOf(again)
		if p != nil || !e.ValidTo.Equal(d.ValidTo) || e.describe() != d.describe() {
			t.Fatalf("%+v becomes %+v, %+v", d, e, p)
		}
		for _, c := range plain(d.Reason) {
			if unicode.Is(unicode.Bidi_Control, c) || unicode.IsControl(c) {
				t.Fatalf("%q is not plain", d.Reason)
			}
		}
	})
}
