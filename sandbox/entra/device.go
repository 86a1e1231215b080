package entra

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

// device is a sign-in on another device. user is an object id.
type device struct {
	userCode, client, scope string
	user                    string
	signedIn, mfa           time.Time
	declined, redeemed      bool
	polled, expires         time.Time
}

const deviceInterval = 5 * time.Second

// ErrNoDeviceCode: the user code is unknown, answered already or has expired.
var ErrNoDeviceCode = errors.New("no such user code")

func (s *Server) deviceCode(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.refused(w, r, refuse(900144, "form"))
		return
	}
	s.mu.Lock()
	value, d, refused := s.startDevice(r)
	s.mu.Unlock()
	if refused != nil {
		s.refused(w, r, refused)
		return
	}
	page := "https://" + r.Host + "/common/oauth2/deviceauth"
	answer(w, http.StatusOK, map[string]any{
		"user_code": d.userCode, "device_code": value, "verification_uri": page,
		"expires_in": int(deviceCodeLife.Seconds()), "interval": int(deviceInterval.Seconds()),
		"message": "To sign in, open " + page + " and enter the code " + d.userCode + ".",
	})
}

func (s *Server) startDevice(r *http.Request) (string, *device, *refusal) {
	app := s.apps[r.PostForm.Get("client_id")]
	if app == nil {
		return "", nil, refuse(700016, "")
	}
	if _, refused := s.parseScopes(r.PostForm.Get("scope")); refused != nil {
		return "", nil, refused
	}
	value := "DAQAB" + randomHex(200)
	d := &device{
		userCode: strings.ToUpper(randomHex(5))[:9], client: app.ClientID, scope: r.PostForm.Get("scope"),
		expires: time.Now().Add(deviceCodeLife),
	}
	s.devices[value] = d
	return value, d, nil
}

// ApproveDevice signs a user in with a user code, and consents.
func (s *Server) ApproveDevice(userCode, upn string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.waiting(userCode)
	if d == nil {
		return ErrNoDeviceCode
	}
	u, refused := s.signInUser(upn)
	if refused != nil {
		return errors.New(refused.text)
	}
	app := s.apps[d.client]
	if refused := s.blocks(&flow{kind: deviceFlow, app: app}, u); refused != nil {
		return errors.New(refused.text)
	}
	if err := s.consent(u.ObjectID, d.client, strings.Fields(d.scope)); err != nil {
		return err
	}
	d.user, d.signedIn = u.ObjectID, time.Now()
	if s.needsMFA(u, app) {
		d.mfa = d.signedIn
	}
	return nil
}

// DeclineDevice refuses a user code.
func (s *Server) DeclineDevice(userCode string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.waiting(userCode)
	if d == nil {
		return ErrNoDeviceCode
	}
	d.declined = true
	return nil
}

func (s *Server) waiting(userCode string) *device {
	userCode = strings.TrimSpace(userCode)
	for _, d := range s.devices {
		answered := d.user != "" || d.declined
		if strings.EqualFold(d.userCode, userCode) && !answered && time.Now().Before(d.expires) {
			return d
		}
	}
	return nil
}

// showDevice begins the walk of a person who has got a user code.
func (s *Server) showDevice(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	out := s.start(w, r, &flow{kind: deviceFlow, base: s.base(r)})
	s.mu.Unlock()
	out(w, r)
}
