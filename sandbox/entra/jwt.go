package entra

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Claims are what an access token says.
type Claims struct {
	Audience string
	Issuer   string
	Subject  string
	ObjectID string
	TenantID string
	UPN      string   // empty for an app
	AppID    string   // the client
	Scopes   []string // delegated permissions (scp); empty for an app
	IDType   string   // "user" or "app"
	IssuedAt time.Time
	Expires  time.Time
	ID       string // uti
}

var (
	// ErrInvalidToken: not a token of this tenant, or tampered with.
	ErrInvalidToken = errors.New("invalid token")
	// ErrExpiredToken: its time is over.
	ErrExpiredToken = errors.New("expired token")
	// ErrRevoked: continuous access evaluation has ended it; the service
	// answers with a claims challenge.
	ErrRevoked = errors.New("revoked token")
)

// VerifyAccessToken checks signature and time of a token and returns what it
// says. Audience, scopes and type of identity are for the caller to judge. An
// id token is not an access token.
func (s *Server) VerifyAccessToken(token string) (Claims, error) {
	m, err := s.verify(token)
	if err != nil {
		return Claims{}, err
	}
	c := claimsOf(m)
	if c.IDType == "" { // an id token
		return Claims{}, ErrInvalidToken
	}
	if now := time.Now(); !now.Before(c.Expires) {
		return c, ErrExpiredToken
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[strings.ToLower(c.UPN)]; u != nil && u.ObjectID == c.ObjectID {
		if g, _ := m["xms_gen"].(float64); int(g) != u.generation {
			return c, ErrRevoked
		}
	}
	return c, nil
}

func claimsOf(m map[string]any) Claims {
	str := func(k string) string { v, _ := m[k].(string); return v }
	at := func(k string) time.Time { v, _ := m[k].(float64); return time.Unix(int64(v), 0) }
	return Claims{
		Audience: str("aud"), Issuer: str("iss"), Subject: str("sub"), ObjectID: str("oid"), TenantID: str("tid"),
		UPN: str("upn"), AppID: str("appid"), Scopes: strings.Fields(str("scp")), IDType: str("idtyp"),
		IssuedAt: at("iat"), Expires: at("exp"), ID: str("uti"),
	}
}

func (s *Server) sign(claims map[string]any) string {
	body, err := json.Marshal(claims)
	if err != nil {
		panic(err) // strings and numbers only
	}
	signed := b64(`{"typ":"JWT","alg":"HS256","kid":"sandbox"}`) + "." + b64(string(body))
	return signed + "." + s.mac(signed)
}

func (s *Server) mac(signed string) string {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(signed))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// verify checks the signature of a token of this server.
func (s *Server) verify(token string) (map[string]any, error) {
	i := strings.LastIndexByte(token, '.')
	if i < 0 {
		return nil, ErrInvalidToken
	}
	// Compared as text: base64 has several spellings of the same bytes.
	if !hmac.Equal([]byte(token[i+1:]), []byte(s.mac(token[:i]))) {
		return nil, ErrInvalidToken
	}
	_, claims, err := parseJWT(token)
	return claims, err
}

// parseJWT reads a token without checking its signature.
func parseJWT(token string) (header, claims map[string]any, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, nil, ErrInvalidToken
	}
	for i, into := range []*map[string]any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, into) != nil || *into == nil {
			return nil, nil, ErrInvalidToken
		}
	}
	return header, claims, nil
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
