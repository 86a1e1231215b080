package entra

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Consent records a user's consent to scopes ("<resource>/<scope>").
func (s *Server) Consent(upn, clientID string, scopes ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[strings.ToLower(upn)]
	if u == nil {
		return fmt.Errorf("no user %s in the tenant", upn)
	}
	return s.consent(u.ObjectID, clientID, scopes)
}

// consent records it for a user, or with an empty user for the whole tenant.
func (s *Server) consent(user, clientID string, scopes []string) error {
	k := consentKey{user, clientID}
	if s.consents[k] == nil {
		s.consents[k] = map[string]bool{}
	}
	for _, scope := range scopes {
		if isOpenID(scope) {
			continue
		}
		res, name, err := s.splitScope(scope)
		if err != nil {
			return fmt.Errorf("scope %s does not exist in the tenant", scope)
		}
		if name == ".default" {
			if app := s.apps[clientID]; app != nil {
				for _, p := range app.Scopes {
					s.consents[k][s.scopeKey(p)] = true
				}
			}
			continue
		}
		s.consents[k][strings.ToLower(res.ID+"/"+name)] = true
	}
	return nil
}

// WithdrawConsent forgets everything that a user has consented to for an app.
func (s *Server) WithdrawConsent(upn, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[strings.ToLower(upn)]; u != nil {
		delete(s.consents, consentKey{u.ObjectID, clientID})
	}
}

// WithdrawAdminConsent forgets what administrators have consented to for an app
// on its pages. App.AdminConsent stays as it is.
func (s *Server) WithdrawAdminConsent(clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.consents, consentKey{"", clientID})
}

// consented lists which of a resource's permissions a user has granted to an
// app, by himself or through an administrator.
func (s *Server) consented(user string, app *App, res *Resource) []string {
	var out []string
	own, everybody := s.consents[consentKey{user, app.ClientID}], s.consents[consentKey{"", app.ClientID}]
	for _, name := range res.Scopes {
		key := strings.ToLower(res.ID + "/" + name)
		byRegistration := app.AdminConsent && s.registers(app, key)
		if own[key] || everybody[key] || byRegistration {
			out = append(out, name)
		}
	}
	return out
}

// registers says whether a permission is in the app's registration.
func (s *Server) registers(app *App, key string) bool {
	return slices.ContainsFunc(app.Scopes, func(p string) bool { return s.scopeKey(p) == key })
}

// missing are the permissions of a request that nobody has granted yet.
func (s *Server) missing(user string, app *App, w *wanted) []string {
	if w.resource == nil {
		return nil
	}
	have := s.consented(user, app, w.resource)
	if w.all {
		if len(have) > 0 { // what more the registration lists is not asked for again
			return nil
		}
		return []string{".default"}
	}
	return slices.DeleteFunc(slices.Clone(w.names), func(name string) bool {
		return slices.ContainsFunc(have, func(h string) bool { return strings.EqualFold(h, name) })
	})
}

// needsAdministrator says that a plain user can't grant these permissions.
func (s *Server) needsAdministrator(app *App, w *wanted, names []string) bool {
	if s.switches.NoUserConsent {
		return true
	}
	if w.resource == nil {
		return false
	}
	return slices.ContainsFunc(w.resource.AdminOnly, func(only string) bool {
		named := slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, only) })
		return named || w.all && s.registers(app, strings.ToLower(w.resource.ID+"/"+only))
	})
}

// adminConsent starts an administrator's consent for the whole tenant. Without
// a scope parameter (the older endpoint) it is about all that the app's
// registration lists.
func (s *Server) adminConsent(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	out := s.startAdminConsent(w, r)
	s.mu.Unlock()
	out(w, r)
}

func (s *Server) startAdminConsent(w http.ResponseWriter, r *http.Request) reply {
	q := r.URL.Query()
	app := s.apps[q.Get("client_id")]
	if app == nil {
		return trouble(refuse(700016, ""))
	}
	back := q.Get("redirect_uri")
	if back == "" {
		return trouble(refuse(900144, "redirect_uri"))
	}
	if _, ok := app.platform(back); !ok {
		return trouble(refuse(50011, ""))
	}
	scopes := strings.Fields(q.Get("scope"))
	if len(scopes) == 0 {
		scopes = app.Scopes
	}
	req := &signInRequest{app: app, redirect: back, mode: "query", state: q.Get("state"), query: q}
	for _, scope := range scopes {
		if isOpenID(scope) {
			continue
		}
		if _, _, refused := s.splitScope(scope); refused != nil {
			return s.sendBack(req, refused.fields())
		}
	}
	return s.start(w, r, &flow{
		kind: adminFlow, base: s.base(r), app: app, req: req,
		scopes: scopes, wanted: &wanted{}, hint: q.Get("login_hint"),
	})
}

// grantForTenant ends an administrator's consent.
func (s *Server) grantForTenant(f *flow) reply {
	if err := s.consent("", f.app.ClientID, f.scopes); err != nil {
		return s.sendBack(f.req, refuse(650053, "").fields())
	}
	fields := url.Values{"admin_consent": {"True"}, "tenant": {s.cfg.Tenant}}
	if f.req.query.Get("scope") != "" {
		fields.Set("scope", strings.Join(f.scopes, " "))
	}
	return s.sendBack(f.req, fields)
}
