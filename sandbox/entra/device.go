package entra

import (
	"errors"
	"html/template"
	"net/http"
	"strings"
	"time"
)

// device is a sign-in on another device.
type device struct {
	userCode, client, scope string
	user                    string
	declined, redeemed      bool
	expires                 time.Time
}

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
		"user_code": d.userCode, "device_code": value, "verification_uri": page, "expires_in": int(deviceCodeLife.Seconds()), "interval": 5,
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
		userCode: strings.ToUpper(randomHex(5))[:9], client: app.ClientID, scope: r.PostForm.Get("scope"), expires: time.Now().Add(deviceCodeLife)}
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
	u, refused := s.activeUser(upn)
	if refused != nil {
		return errors.New(refused.text)
	}
	if err := s.consent(u.UPN, d.client, strings.Fields(d.scope)); err != nil {
		return err
	}
	d.user = strings.ToLower(u.UPN)
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
	for _, d := range s.devices {
		if strings.EqualFold(d.userCode, strings.TrimSpace(userCode)) && d.user == "" && !d.declined && time.Now().Before(d.expires) {
			return d
		}
	}
	return nil
}

var devicePage = template.Must(template.New("device").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Enter code (sandbox)</title>
<style>body{font:16px system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem}button,input,select{font:inherit}</style>
<h1>Enter the code that the other device shows</h1>
<form method="post"><p><input name="code" autocomplete="off" required></p>
<p><label>Account <select name="user">{{range .}}<option>{{.}}</option>{{end}}</select></label></p>
<button name="action" value="accept">Sign in</button> <button name="action" value="deny">Decline</button></form></html>
`))

func (s *Server) showDevice(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	var users []string
	for _, u := range s.users {
		users = append(users, u.UPN)
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = devicePage.Execute(w, users)
}

func (s *Server) approveDevice(w http.ResponseWriter, r *http.Request) {
	var err error
	if r.PostFormValue("action") == "accept" {
		err = s.ApproveDevice(r.PostFormValue("code"), r.PostFormValue("user"))
	} else {
		err = s.DeclineDevice(r.PostFormValue("code"))
	}
	if err != nil {
		message(w, http.StatusBadRequest, "That didn't work", err.Error())
		return
	}
	message(w, http.StatusOK, "Done", "You can close this page.")
}
