package entra

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

func operation(r *http.Request) string {
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		return "discovery"
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		return "instance discovery"
	case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/authorize"):
		return "authorize"
	case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/devicecode"):
		return "devicecode"
	case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token"):
		r.Body = http.MaxBytesReader(nil, r.Body, 1<<20)
		_ = r.ParseForm() // the handler sees the same form
		switch g := r.PostForm.Get("grant_type"); g {
		case "refresh_token", "authorization_code", "client_credentials":
			return "token " + g
		case "device_code", deviceCodeGrant:
			return "token device_code"
		}
		return "token"
	}
	return ""
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /common/discovery/instance", s.instanceDiscovery)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", s.inTenant(s.discovery))
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", s.inTenant(s.keys))
	mux.HandleFunc("GET /{tenant}/oauth2/v2.0/authorize", s.inTenant(s.showSignIn))
	mux.HandleFunc("POST /{tenant}/signin", s.inTenant(s.proceed))
	mux.HandleFunc("GET /{tenant}/adminconsent", s.inTenant(s.adminConsent))
	mux.HandleFunc("GET /{tenant}/v2.0/adminconsent", s.inTenant(s.adminConsent))
	mux.HandleFunc("GET /{tenant}/oauth2/v2.0/logout", s.inTenant(s.signOut))
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", s.inTenant(s.token))
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/devicecode", s.inTenant(s.deviceCode))
	mux.HandleFunc("GET /{tenant}/oauth2/deviceauth", s.inTenant(s.showDevice))
	return mux
}

// inTenant refuses a tenant that is not this one. "common" and
// "organizations" stand for the user's own tenant, which is this one.
func (s *Server) inTenant(next http.HandlerFunc) http.HandlerFunc {
	names := []string{s.cfg.Tenant, s.cfg.Domain, "common", "organizations"}
	return func(w http.ResponseWriter, r *http.Request) {
		t := r.PathValue("tenant")
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, t) }) {
			f := refuse(90002, "")
			if operation(r) == "discovery" {
				f.err = "invalid_tenant"
			}
			s.refused(w, r, f)
			return
		}
		next(w, r)
	}
}

// base is the URL of the tenant's endpoints as the client sees them.
func (s *Server) base(r *http.Request) string {
	return "https://" + r.Host + "/" + r.PathValue("tenant")
}

func (s *Server) discovery(w http.ResponseWriter, r *http.Request) {
	base := s.base(r)
	answer(w, http.StatusOK, map[string]any{
		"issuer":                                s.Issuer(),
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"device_authorization_endpoint":         base + "/oauth2/v2.0/devicecode",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"response_types_supported":              []string{"code"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"HS256"},
		"token_endpoint_auth_methods_supported": []string{
			"client_secret_post", "private_key_jwt", "client_secret_basic",
		},
		"code_challenge_methods_supported": []string{"S256"},
	})
}

// keys is empty: tokens are signed with a key that only the sandbox has.
func (s *Server) keys(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"keys": []any{}})
}

func (s *Server) instanceDiscovery(w http.ResponseWriter, r *http.Request) {
	asked, err := url.Parse(r.URL.Query().Get("authorization_endpoint"))
	public := []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"}
	if err != nil || asked.Scheme != "https" || !slices.Contains(append(public, r.Host), asked.Host) {
		s.refused(w, r, refuse(50049, ""))
		return
	}
	metadata := []any{map[string]any{"preferred_network": public[0], "preferred_cache": public[1], "aliases": public}}
	if !slices.Contains(public, asked.Host) {
		metadata = append(metadata, map[string]any{
			"preferred_network": asked.Host, "preferred_cache": asked.Host, "aliases": []string{asked.Host},
		})
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(asked.Path, "/"), "/")
	answer(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": "https://" + asked.Host + "/" + tenant + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata":                  metadata,
	})
}
