package htmlclient

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// Person is somebody who answers the pages of the sandbox's authority.
type Person struct {
	User string // who signs in; empty: the account that is preselected
	// CancelAt is the page (account, sign-in, enrol, mfa, confirm, consent,
	// approval, device) at which the person goes away; empty: none.
	CancelAt string
	// UserCode is what another device shows.
	UserCode string
	// ForEverybody: an administrator consents for the whole tenant.
	ForEverybody bool
	// Saw gets the name of each page; may be nil.
	Saw func(step string)
}

var phone = regexp.MustCompile(`<output id="phone">([0-9]+)</output>`)

// Walk opens a page and goes on until the pages end: at a client's address
// (Page.Left), at a form that is to be sent to one, or at a page without a form.
func (p Person) Walk(ctx context.Context, b *Browser, page string) (*Page, error) {
	at, err := b.Open(ctx, page)
	seen := map[string]int{}
	for ; err == nil; at, err = p.answer(ctx, b, at) {
		step, ok := at.Step()
		if !ok {
			return at, nil
		}
		if p.Saw != nil {
			p.Saw(step)
		}
		seen[step]++
		if seen[step] > 1 { // it did not help
			return at, nil
		}
	}
	return nil, fmt.Errorf("walking through the sign-in pages: %w", err)
}

// Step is the name of a page of the authority.
func (p *Page) Step() (string, bool) {
	if p.Left() || len(p.Forms) != 1 || !p.Forms[0].Fields.Has("flow") {
		return "", false
	}
	return p.Forms[0].Fields.Get("step"), true
}

// answer sends the page's form as the person decides.
func (p Person) answer(ctx context.Context, b *Browser, at *Page) (*Page, error) {
	form := at.Forms[0]
	step := form.Fields.Get("step")
	if step == p.CancelAt || step == "approval" {
		return b.Submit(ctx, at, form, "action", "cancel")
	}
	var set []string
	switch step {
	case "device":
		set = []string{"code", p.UserCode, "action", "next"}
	case "account":
		set = []string{"action", "next"}
		if p.User != "" {
			set = append(set, "user", p.User)
		}
	case "sign-in":
		set = []string{"action", "sign-in"}
	case "enrol":
		set = []string{"action", "enrol"}
	case "mfa":
		shown := phone.FindStringSubmatch(at.HTML)
		if shown == nil {
			return nil, errors.New("the phone shows nothing")
		}
		set = []string{"action", "verify", "code", shown[1]}
	case "confirm":
		set = []string{"action", "continue"}
	case "consent":
		set = []string{"action", "accept"}
		if p.ForEverybody {
			set = append(set, "everybody", "on")
		}
	default:
		return nil, fmt.Errorf("a page that nobody knows: %s", step)
	}
	return b.Submit(ctx, at, form, set...)
}
