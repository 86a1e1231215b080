package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

// check is one thing that must hold for an app registration.
type check struct {
	name   string
	client string
	run    func(*fixture) error
}

func checks() []check {
	var all []check
	for _, client := range []string{publicClient, confidentialClient} {
		all = append(all,
			check{"a person signs in, and the token is that person's", client, (*fixture).signsIn},
			check{"every refresh replaces the refresh token, and the process goes on with it",
				client, (*fixture).rotates},
			check{"a later process goes on with what is stored", client, (*fixture).goesOn},
			check{"a used refresh token ends the sign-in, and another sign-in repairs it",
				client, (*fixture).noticesReuse},
			check{"a revoked refresh token ends the sign-in, and a person is notified once",
				client, (*fixture).noticesRevocation},
			check{"another user is refused, and nothing is stored", client, (*fixture).refusesAnother},
			check{"a person who goes away comes back with the reason", client, (*fixture).survivesCancel},
			check{"a wrong verifier gets no token", client, (*fixture).provesPossession},
			check{"a code serves once", client, (*fixture).usesCodesOnce},
			check{"an answer with another nonce is refused", client, (*fixture).checksTheNonce},
		)
	}
	return append(all, check{"another certificate gets no token", confidentialClient, (*fixture).needsTheCertificate})
}

func (s *fixture) signsIn() error {
	c, err := s.process()
	if err != nil {
		return err
	}
	if _, err := s.token(c, false); rotation.ClassOf(err) != rotation.SignIn {
		return fmt.Errorf("before the sign-in: %v", err)
	}
	if got := s.events(); got != "required" {
		return fmt.Errorf("before the sign-in patrol notifies of %q", got)
	}
	if err := s.signIn(c); err != nil {
		return err
	}
	if _, _, err := s.vault.refreshToken(); err != nil {
		return err
	}
	token, err := s.token(c, false)
	if err != nil {
		return err
	}
	if who, err := s.whose(token); err != nil || who != bot {
		return fmt.Errorf("the token is of %q (%v)", who, err)
	}
	if got := s.events(); got != "signed-in" {
		return fmt.Errorf("patrol notifies of %q", got)
	}
	return nil
}

// signedIn is a process after a sign-in.
func (s *fixture) signedIn() (*entra.Client, error) {
	c, err := s.process()
	if err != nil {
		return nil, err
	}
	if err := s.signIn(c); err != nil {
		return nil, err
	}
	s.events()
	return c, nil
}

func (s *fixture) rotates() error {
	c, err := s.signedIn()
	if err != nil {
		return err
	}
	for n := 1; n <= 4; n++ { // the authority takes each refresh token once
		access, err := s.token(c, true)
		if err != nil {
			return fmt.Errorf("refresh %d: %w", n, err)
		}
		if who, err := s.whose(access); err != nil || who != bot {
			return fmt.Errorf("refresh %d: the token is of %q (%v)", n, who, err)
		}
	}
	if _, versions, err := s.vault.refreshToken(); err != nil || versions != 1 {
		return fmt.Errorf("there are %d versions, want the sign-in's alone (%v)", versions, err)
	}
	return nil
}

// goesOn: each process stores what replaced the refresh token that it found,
// since its clock says that the stored one is a week old.
func (s *fixture) goesOn() error {
	if _, err := s.signedIn(); err != nil {
		return err
	}
	s.ahead = 8 * 24 * time.Hour
	seen := map[string]bool{}
	for n := 1; n <= 3; n++ {
		token, versions, err := s.vault.refreshToken()
		if err != nil {
			return err
		}
		if seen[token] || versions != n {
			return fmt.Errorf("after %d processes there are %d versions, or one of them is stored twice", n-1, versions)
		}
		seen[token] = true
		c, err := s.process()
		if err != nil {
			return err
		}
		if err := c.Refresh(s.ctx, identity); err != nil {
			return fmt.Errorf("process %d: %w", n, err)
		}
	}
	if got := s.events(); got != "" {
		return fmt.Errorf("patrol notifies of %q", got)
	}
	return nil
}

// ended checks that patrol takes the sign-in as dead, says so once, and that
// another sign-in is all it takes.
func (s *fixture) ended(c *entra.Client) error {
	for range 2 {
		if _, err := s.token(c, true); rotation.ClassOf(err) != rotation.SignIn {
			return fmt.Errorf("patrol does not ask for a sign-in: %v", err)
		}
	}
	if got := s.events(); got != "required" {
		return fmt.Errorf("patrol notifies of %q", got)
	}
	if st, err := c.Status(s.ctx, identity); err != nil || !st.Required || st.Code == "" {
		return fmt.Errorf("the status does not say so: %v", err)
	}
	if err := s.signIn(c); err != nil {
		return fmt.Errorf("signing in again: %w", err)
	}
	if _, err := s.token(c, true); err != nil {
		return fmt.Errorf("after signing in again: %w", err)
	}
	if got := s.events(); got != "signed-in" {
		return fmt.Errorf("after signing in again patrol notifies of %q", got)
	}
	return nil
}

func (s *fixture) noticesReuse() error {
	c, err := s.signedIn()
	if err != nil {
		return err
	}
	first, _, err := s.vault.refreshToken()
	if err != nil {
		return err
	}
	if _, err := s.token(c, true); err != nil {
		return err
	}
	// A thief uses the old one.
	status, problem, err := s.post("/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first}})
	if err != nil || status != 400 || problem != "invalid_grant" {
		return fmt.Errorf("the authority takes a used refresh token: %d %s (%v)", status, problem, err)
	}
	return s.ended(c)
}

func (s *fixture) noticesRevocation() error {
	c, err := s.signedIn()
	if err != nil {
		return err
	}
	token, _, err := s.vault.refreshToken()
	if err != nil {
		return err
	}
	form := url.Values{"token": {token}, "token_type_hint": {"refresh_token"}}
	if status, problem, err := s.post("/token/revocation", form); err != nil || status != 200 {
		return fmt.Errorf("the authority does not revoke: %d %s (%v)", status, problem, err)
	}
	return s.ended(c)
}

func (s *fixture) refusesAnother() error {
	c, err := s.process()
	if err != nil {
		return err
	}
	w, page, err := s.begin(c)
	if err != nil {
		return err
	}
	q, err := s.visit(w, page, "mallory@contoso.com")
	if err != nil {
		return err
	}
	return s.refused(c.CompleteSignIn(s.ctx, identity, w.grant(q.Get("code"))))
}

// refused checks that a sign-in has failed for good and left nothing.
func (s *fixture) refused(err error) error {
	if _, ok := errors.AsType[*rotation.Error](err); !ok {
		return fmt.Errorf("it was not refused: %v", err)
	}
	if _, n, _ := s.vault.refreshToken(); n > 0 {
		return errors.New("it was stored")
	}
	return nil
}

var abort = regexp.MustCompile(`href="([^"]+/abort)"`)

func (s *fixture) survivesCancel() error {
	c, err := s.process()
	if err != nil {
		return err
	}
	w, page, err := s.begin(c)
	if err != nil {
		return err
	}
	b := htmlclient.New(s.http.Transport)
	at, err := b.Open(s.ctx, page)
	if err != nil {
		return err
	}
	link := abort.FindStringSubmatch(at.HTML)
	if link == nil {
		return errors.New("the authority's page has no way out")
	}
	to, err := at.URL.Parse(link[1])
	if err != nil {
		return err
	}
	at, err = b.Open(s.ctx, to.String())
	if err != nil {
		return err
	}
	q, err := s.back(w, at)
	if err != nil {
		return err
	}
	if q.Get("error") != "access_denied" || q.Has("code") {
		return fmt.Errorf("the browser comes back with the error %q", q.Get("error"))
	}
	return nil
}

func (s *fixture) provesPossession() error {
	c, err := s.process()
	if err != nil {
		return err
	}
	w, page, err := s.begin(c)
	if err != nil {
		return err
	}
	q, err := s.visit(w, page, bot)
	if err != nil {
		return err
	}
	w.verifier = rand.Text() + rand.Text()
	return s.refused(c.CompleteSignIn(s.ctx, identity, w.grant(q.Get("code"))))
}

func (s *fixture) usesCodesOnce() error {
	c, err := s.process()
	if err != nil {
		return err
	}
	w, page, err := s.begin(c)
	if err != nil {
		return err
	}
	q, err := s.visit(w, page, bot)
	if err != nil {
		return err
	}
	if err := c.CompleteSignIn(s.ctx, identity, w.grant(q.Get("code"))); err != nil {
		return err
	}
	err = c.CompleteSignIn(s.ctx, identity, w.grant(q.Get("code")))
	if e, ok := errors.AsType[*rotation.Error](err); !ok || e.Class != rotation.SignIn {
		return fmt.Errorf("a used code: %v", err)
	}
	// The authority takes a replay for a theft, and ends what the code gave.
	if _, err := s.token(c, true); rotation.ClassOf(err) != rotation.SignIn {
		return fmt.Errorf("after a replay of its code the sign-in lives: %v", err)
	}
	return nil
}

func (s *fixture) checksTheNonce() error {
	c, err := s.process()
	if err != nil {
		return err
	}
	w, page, err := s.begin(c)
	if err != nil {
		return err
	}
	q, err := s.visit(w, page, bot)
	if err != nil {
		return err
	}
	w.nonce = rand.Text()
	return s.refused(c.CompleteSignIn(s.ctx, identity, w.grant(q.Get("code"))))
}

func (s *fixture) needsTheCertificate() error {
	if _, err := s.signedIn(); err != nil {
		return err
	}
	key, cert, err := certificate()
	if err != nil {
		return err
	}
	thief := *s.authority
	thief.key, thief.cert = key, cert
	s.authority = &thief
	c, err := s.process()
	if err != nil {
		return err
	}
	if _, err := s.token(c, true); rotation.ClassOf(err) != rotation.Configuration {
		return fmt.Errorf("with another certificate: %v", err)
	}
	return nil
}

// assertion proves that the caller has the app's key (RFC 7523).
func (a *authority) assertion(audience string) (string, error) {
	now := time.Now()
	var parts [2]string
	for i, part := range []map[string]any{
		{"alg": "PS256", "typ": "JWT"},
		{"iss": confidentialClient, "sub": confidentialClient, "aud": audience, "jti": rand.Text(),
			"iat": now.Unix(), "exp": now.Add(time.Minute).Unix()},
	} {
		raw, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(raw)
	}
	signed := parts[0] + "." + parts[1]
	sum := sha256.Sum256([]byte(signed))
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	sig, err := rsa.SignPSS(rand.Reader, a.key, crypto.SHA256, sum[:], options)
	if err != nil {
		return "", err
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}
