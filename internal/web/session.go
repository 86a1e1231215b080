package web

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/azure-patrol/patrol/internal/keyring"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// sessionCookie keeps a person signed in to the page. The prefix makes browsers
	// refuse it from anywhere but this very host.
	sessionCookie = "__Host-patrol-session"
	// sessionPurpose is what a session is sealed for, and nothing else.
	sessionPurpose = "session of the page"
	// sessionLife is how long it lasts, whatever happens to the person's roles.
	sessionLife = 8 * time.Hour
	// administratorLife is how fresh a sign-in must be for an administrator's act.
	administratorLife = time.Hour
)

// SessionKeys say since when sessions count, and end all of them; *keyring.Keyring does.
type SessionKeys interface {
	SessionsNotBefore(ctx context.Context) (time.Time, error)
	SignOutEverywhere(ctx context.Context) error
}

// session is a person who has signed in to the page: what the sealed cookie holds.
type session struct {
	UserID   string    `json:"user"` // object id
	Name     string    `json:"name"`
	Roles    []string  `json:"roles"`
	SignedIn time.Time `json:"signedIn"`
	// Form is what each form of this session's pages carries.
	Form string `json:"form"`
}

// Role is the highest that the session has.
func (s *session) Role() Role { return roleOf(s.Roles) }

// caller is the person as audit lines and versions name it.
func (s *session) caller() Caller {
	name := s.Name
	if rotation.IsOwnWord(name) || len(name) > maxActor {
		name = s.UserID
	}
	return Caller{Who: cmp.Or(name, triggerDashboard), Trigger: triggerDashboard}
}

// isFresh says that the sign-in is young enough for an administrator's act.
func (s *session) isFresh(now time.Time) bool { return now.Sub(s.SignedIn) < administratorLife }

// ownsForm says that a form is of this session.
func (s *session) ownsForm(token string) bool {
	return s.Form != "" && subtle.ConstantTimeCompare([]byte(s.Form), []byte(token)) == 1
}

// openSession reads a request's session; nil: there is none that counts. An error is a
// failure to find out.
func (v *Visits) openSession(r *http.Request) (*session, error) {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil, nil
	}
	text, err := v.Sealer.Open(r.Context(), sessionPurpose, cookie.Value)
	if errors.Is(err, keyring.ErrSealed) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s session
	if json.Unmarshal(text, &s) != nil || s.UserID == "" {
		return nil, nil
	}
	since, err := v.Keys.SessionsNotBefore(r.Context())
	if err != nil {
		return nil, err
	}
	now := v.Now()
	isOver := !now.Before(s.SignedIn.Add(sessionLife)) || s.SignedIn.Before(since)
	if isOver || s.SignedIn.After(now.Add(time.Minute)) {
		return nil, nil
	}
	return &s, nil
}

// Operator names the operator or administrator whose session a request has.
func (v *Visits) Operator(r *http.Request) (who string, ok bool) {
	s, err := v.openSession(r)
	if err != nil || s == nil || s.Role() < Operator {
		return "", false
	}
	return s.caller().Who, true
}

// startSession gives the browser its cookie.
func (v *Visits) startSession(ctx context.Context, w http.ResponseWriter, s session) error {
	s.SignedIn, s.Form = v.Now().UTC(), rand.Text()
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	sealed, err := v.Sealer.Seal(ctx, sessionPurpose, text)
	if err != nil {
		return err
	}
	setHostCookie(w, sessionCookie, sealed, sessionLife)
	return nil
}

// endSession takes the cookie away.
func (v *Visits) endSession(w http.ResponseWriter) { setHostCookie(w, sessionCookie, "", -time.Second) }

// setHostCookie is SameSite=Lax: Entra's redirect, and a link in an alert, are navigations
// from elsewhere. A negative life removes the cookie.
func setHostCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second), Secure: true,
		HttpOnly: true, SameSite: http.SameSiteLaxMode})
}
