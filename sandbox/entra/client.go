package entra

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// checkClient enforces the platform's rule: a confidential client must present
// a credential, a public one must not, a single page app redeems across
// origins.
func (s *Server) checkClient(r *http.Request, app *App, c class, f url.Values) *refusal {
	secret, assertion := f.Get("client_secret"), f.Get("client_assertion")
	if id, pw, ok := r.BasicAuth(); ok && id == app.ClientID {
		secret = pw
	}
	presented := secret != "" || assertion != ""
	origin := r.Header.Get("Origin") != ""
	switch {
	case c == spa && !origin:
		return refuse(9002327, "")
	case c != spa && origin:
		return refuse(9002326, "")
	case c == confidential && !presented:
		return refuse(7000218, "")
	case c != confidential && presented:
		return refuse(700025, "")
	case c == public && !app.takesPublicClients(f.Get("grant_type")):
		return refuse(7000218, "")
	case !presented:
		return nil
	case secret != "":
		if slices.Contains(app.ExpiredSecrets, secret) {
			return refuse(7000222, "")
		}
		if !slices.Contains(app.Secrets, secret) {
			return refuse(7000215, "")
		}
		return nil
	case f.Get("client_assertion_type") != assertionType:
		return refuse(900144, "client_assertion_type")
	}
	if refused := s.checkAssertion(r, app, assertion); refused != nil {
		return refused
	}
	s.assertions++
	return nil
}

// takesPublicClients says whether a client without a credential may use a grant.
func (app *App) takesPublicClients(grant string) bool {
	switch {
	case app.AllowPublicClient, grant == "authorization_code":
		return true
	case grant == deviceCodeGrant || grant == "device_code":
		return false
	}
	return len(app.Native) > 0
}

func (s *Server) checkAssertion(r *http.Request, app *App, assertion string) *refusal {
	header, m, err := parseJWT(assertion)
	if err != nil {
		return refuse(50013, "")
	}
	c := claimsOf(m)
	now := time.Now()
	timely := func() *refusal {
		if nbf, _ := m["nbf"].(float64); now.Unix() < int64(nbf) || !now.Before(c.Expires) {
			return refuse(700024, "")
		}
		return nil
	}
	if c.Issuer == app.ClientID { // the app's own certificate
		if refused := s.checkCertificate(app, header, assertion); refused != nil {
			return refused
		}
		audiences := []string{s.base(r) + "/oauth2/v2.0/token", s.Issuer()}
		if c.Subject != app.ClientID || !slices.Contains(audiences, c.Audience) {
			return refuse(700027, "")
		}
		return timely()
	}
	var byIssuer, bySubject bool
	for _, fc := range app.Federated {
		if fc.Issuer != c.Issuer {
			continue
		}
		byIssuer = true
		if fc.Subject != c.Subject {
			continue
		}
		bySubject = true
		if fc.Audience != c.Audience {
			continue
		}
		if _, err := s.verify(assertion); err != nil { // no other issuer exists here
			return refuse(50013, "")
		}
		return timely()
	}
	switch {
	case bySubject:
		return refuse(700212, "")
	case byIssuer:
		return refuse(700213, "")
	}
	return refuse(700211, "")
}

func (s *Server) checkCertificate(app *App, header map[string]any, assertion string) *refusal {
	// Clients name their certificate by x5t#S256, older ones by x5t (SHA-1).
	print, _ := header["x5t#S256"].(string)
	digest := func(raw []byte) []byte { sum := sha256.Sum256(raw); return sum[:] }
	if print == "" {
		print, _ = header["x5t"].(string)
		digest = func(raw []byte) []byte { sum := sha1.Sum(raw); return sum[:] }
	}
	print = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(print), "=")
	want, err := base64.RawURLEncoding.DecodeString(print)
	if err != nil || len(want) == 0 {
		return refuse(700027, "x5t")
	}
	i := slices.IndexFunc(app.Certificates, func(cert *x509.Certificate) bool {
		return bytes.Equal(digest(cert.Raw), want)
	})
	if i < 0 {
		return refuse(700027, "No such certificate is registered.")
	}
	cert := app.Certificates[i]
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	dot := strings.LastIndexByte(assertion, '.')
	sig, err := base64.RawURLEncoding.DecodeString(assertion[dot+1:])
	now := time.Now()
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return refuse(1000502, "")
	}
	if !ok || err != nil {
		return refuse(700027, "")
	}
	sum := sha256.Sum256([]byte(assertion[:dot]))
	switch header["alg"] {
	case "PS256":
		err = rsa.VerifyPSS(key, crypto.SHA256, sum[:], sig, nil)
	case "RS256":
		err = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig)
	default:
		return refuse(700027, "alg")
	}
	if err != nil {
		return refuse(700027, "")
	}
	return nil
}
