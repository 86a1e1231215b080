package entra

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Policy is a Conditional Access policy. It holds for sign-ins and for each
// redemption of a refresh token.
type Policy struct {
	ID        string // default: made up; claims challenges name it
	User, App string // empty: any
	// MFA wants multi-factor authentication: AADSTS50076, or 50079 for a user
	// who has not enrolled.
	MFA bool
	// Block refuses: AADSTS53003.
	Block bool
	// BlockDeviceCode refuses the device code flow, and every refresh token
	// that descends from one: AADSTS53003.
	BlockDeviceCode bool
	// SecurityDefaults stand for the tenant's: they refuse device codes, and the
	// refresh tokens that descend from them, with AADSTS530035.
	SecurityDefaults bool
	// TokenProtection wants tokens that are bound to a device: AADSTS530084.
	TokenProtection bool
	// BlockRisk refuses whoever is at risk: AADSTS53011.
	BlockRisk bool
	// Device wants a known device, which no server is: AADSTS50131.
	Device bool
	// SignInFrequency is how long a sign-in counts: AADSTS70043. Silent
	// redemptions of a confidential client are exempt.
	SignInFrequency time.Duration
}

// AddPolicy puts a policy into force and returns its id.
func (s *Server) AddPolicy(p Policy) string {
	if p.ID == "" {
		p.ID = newGUID()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies = append(s.policies, &p)
	return p.ID
}

// RemovePolicy takes a policy out of force.
func (s *Server) RemovePolicy(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies = slices.DeleteFunc(s.policies, func(p *Policy) bool { return p.ID == id })
}

func (s *Server) policiesFor(u *user, app *App) []*Policy {
	var out []*Policy
	for _, p := range s.policies {
		forUser := p.User == "" || strings.EqualFold(p.User, u.UPN)
		forApp := p.App == "" || app != nil && p.App == app.ClientID
		if forUser && forApp {
			out = append(out, p)
		}
	}
	return out
}

func (s *Server) needsMFA(u *user, app *App) bool {
	return u.MFA || slices.ContainsFunc(s.policiesFor(u, app), func(p *Policy) bool { return p.MFA })
}

// access judges a sign-in by the policies: blocked, out of date, or in need of
// multi-factor authentication.
func (s *Server) access(u *user, app *App, t *refreshToken, now time.Time) *refusal {
	refused := func(code int, p *Policy) *refusal {
		r := refuse(code, "")
		if p != nil {
			r.claims = challenge(p.ID)
		}
		return r
	}
	policies := s.policiesFor(u, app)
	for _, p := range policies {
		switch code := p.blocks(t.device); code {
		case 0:
		case 53003:
			return refused(code, p)
		default:
			return refused(code, nil)
		}
	}
	for _, p := range policies {
		if p.SignInFrequency > 0 && t.class != confidential && now.Sub(t.signedIn) >= p.SignInFrequency {
			return refuse(70043, "")
		}
	}
	code := 50076
	if u.NotEnrolled {
		code = 50079
	}
	for _, p := range policies {
		if p.MFA && t.mfa.IsZero() {
			return refused(code, p)
		}
	}
	if u.MFA && t.mfa.IsZero() {
		return refused(code, nil)
	}
	return nil
}

func (p *Policy) forAllWithMFA() bool { return p.MFA && p.User == "" && p.App == "" }

// blocks is the number with which a policy refuses a sign-in whatever the person does;
// 0: it does not.
func (p *Policy) blocks(byDevice bool) int {
	switch {
	case p.Block, p.BlockDeviceCode && byDevice:
		return 53003
	case p.SecurityDefaults && byDevice:
		return 530035
	case p.TokenProtection:
		return 530084
	case p.BlockRisk:
		return 53011
	case p.Device:
		return 50131
	}
	return 0
}

// challenge is the claims parameter by which a policy asks for more.
func challenge(policy string) string {
	return `{"access_token":{"capolids":{"essential":true,"values":["` + policy + `"]}}}`
}

// demandsMFA reads the claims parameter of a sign-in request: a policy's
// challenge, or a wish for the claim amr or acrs, wants multi-factor
// authentication. ok is false if it can't be read.
func demandsMFA(claims string) (demanded, ok bool) {
	if claims == "" {
		return false, true
	}
	var request map[string]map[string]json.RawMessage
	if json.Unmarshal([]byte(claims), &request) != nil || request == nil {
		return false, false
	}
	for _, wishes := range request {
		for name := range wishes {
			demanded = demanded || slices.Contains([]string{"capolids", "acrs", "amr"}, name)
		}
	}
	return demanded, true
}
