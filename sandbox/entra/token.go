package entra

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	deviceCodeGrant = "urn:ietf:params:oauth:grant-type:device_code"
	defaultLife     = 75 * time.Minute
)

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.refused(w, r, refuse(900144, "form"))
		return
	}
	body, refused := s.redeem(r)
	if refused != nil {
		s.refused(w, r, refused)
		return
	}
	w.Header().Set("Cache-Control", "no-store, no-cache")
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("x-ms-request-id", newGUID())
	answer(w, http.StatusOK, body)
}

func (s *Server) redeem(r *http.Request) (map[string]any, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := r.PostForm
	grant := f.Get("grant_type")
	if grant == "" {
		return nil, refuse(900144, "grant_type")
	}
	if f.Get("client_id") == "" {
		return nil, refuse(900144, "client_id")
	}
	app := s.apps[f.Get("client_id")]
	if app == nil {
		return nil, refuse(700016, "")
	}
	if app.Disabled {
		return nil, refuse(7000112, "")
	}
	if raw, ok := f["claims"]; ok {
		var claims map[string]any
		unreadable := len(raw) != 1 || json.Unmarshal([]byte(raw[0]), &claims) != nil || claims == nil
		refusedAsEmpty := len(claims) == 0 && s.switches.RefuseEmptyClaims
		if unreadable || refusedAsEmpty {
			return nil, refuse(90014, "The claims parameter can't be read.")
		}
	}
	switch grant {
	case "refresh_token":
		return s.redeemRefreshToken(r, app, f)
	case "authorization_code":
		return s.redeemCode(r, app, f)
	case "device_code", deviceCodeGrant:
		return s.redeemDeviceCode(r, app, f)
	case "client_credentials":
		return s.clientCredentials(r, app, f)
	}
	return nil, refuse(70003, "")
}

func (s *Server) redeemRefreshToken(r *http.Request, app *App, f url.Values) (map[string]any, *refusal) {
	value := f.Get("refresh_token")
	if value == "" {
		return nil, refuse(900144, "refresh_token")
	}
	t := s.refresh[value]
	if t == nil || t.client != app.ClientID { // bound to user and client
		return nil, refuse(70000, "")
	}
	if refused := s.checkClient(r, app, t.class, f); refused != nil {
		return nil, refused
	}
	if refused := s.failure(s.upnOf(t.user), app.ClientID); refused != nil {
		return nil, refused
	}
	now := time.Now()
	u, refused := s.member(t.user)
	switch {
	case refused != nil:
		return nil, refused
	case t.ended != 0:
		return nil, refuse(t.ended, "")
	case t.signedIn.Before(u.signInsFrom):
		return nil, refuse(50173, "")
	case t.class != confidential && t.signedIn.Before(u.publicFrom):
		return nil, refuse(s.passwordChanged(), "")
	case !now.Before(t.expires) && t.class == spa:
		return nil, refuse(700084, "")
	case !now.Before(t.expires):
		return nil, refuse(700082, fmt.Sprintf("It was issued on %s.", t.issued.UTC().Format(time.RFC3339)))
	case t.used && s.switches.StrictRotation:
		if s.switches.ReuseRevokesFamily {
			for _, other := range s.refresh {
				if other.family == t.family && other.ended == 0 {
					other.ended = 50173
				}
			}
		}
		return nil, refuse(70000, "The refresh token was used before.")
	}
	if refused := s.access(u, app, t, now); refused != nil {
		return nil, refused
	}
	w, refused := s.parseScopes(f.Get("scope"))
	if refused != nil {
		return nil, refused
	}
	body, refused := s.userTokens(app, u, w, f, "", !t.mfa.IsZero())
	if refused != nil {
		return nil, refused
	}
	t.used = true
	if !s.switches.OmitRefreshToken { // a refresh token begets another, whatever scopes are asked
		next := *t
		body["refresh_token"] = s.issueRefreshToken(&next, now)
	}
	return body, nil
}

func (s *Server) redeemCode(r *http.Request, app *App, f url.Values) (map[string]any, *refusal) {
	if f.Get("code") == "" {
		return nil, refuse(900144, "code")
	}
	c := s.codes[f.Get("code")]
	switch {
	case c == nil:
		return nil, refuse(70000, "")
	case c.client != app.ClientID || c.redirect != f.Get("redirect_uri"):
		return nil, refuse(700005, "")
	}
	if refused := s.checkClient(r, app, c.class, f); refused != nil {
		return nil, refused
	}
	now := time.Now()
	switch {
	case c.redeemed:
		return nil, refuse(54005, "")
	case !now.Before(c.expires):
		return nil, refuse(70008, "")
	case c.challenge != "":
		sum := sha256.Sum256([]byte(f.Get("code_verifier")))
		if base64.RawURLEncoding.EncodeToString(sum[:]) != c.challenge {
			return nil, refuse(501481, "")
		}
	}
	if refused := s.failure(s.upnOf(c.user), app.ClientID); refused != nil {
		return nil, refused
	}
	u, refused := s.member(c.user)
	switch {
	case refused != nil:
		return nil, refused
	case c.signedIn.Before(u.signInsFrom):
		return nil, refuse(50173, "")
	}
	t := &refreshToken{
		user: c.user, client: app.ClientID, class: c.class, signedIn: c.signedIn, mfa: c.mfa, family: randomHex(8),
	}
	if refused := s.access(u, app, t, now); refused != nil {
		return nil, refused
	}
	scope := f.Get("scope")
	if scope == "" {
		scope = c.scope
	}
	w, refused := s.parseScopes(scope)
	if refused != nil {
		return nil, refused
	}
	body, refused := s.userTokens(app, u, w, f, c.nonce, !c.mfa.IsZero())
	if refused != nil {
		return nil, refused
	}
	c.redeemed = true
	asked := strings.Fields(strings.ToLower(c.scope)) // on the page
	if w.has("offline_access") || slices.Contains(asked, "offline_access") {
		body["refresh_token"] = s.issueRefreshToken(t, now)
	}
	return body, nil
}

func (s *Server) redeemDeviceCode(r *http.Request, app *App, f url.Values) (map[string]any, *refusal) {
	if f.Get("device_code") == "" {
		return nil, refuse(900144, "device_code")
	}
	d := s.devices[f.Get("device_code")]
	if d == nil || d.client != app.ClientID {
		return nil, &refusal{status: http.StatusBadRequest, err: "bad_verification_code", code: 70018,
			text: "The device code is not known."}
	}
	if refused := s.checkClient(r, app, public, f); refused != nil {
		return nil, refused
	}
	now := time.Now()
	switch {
	case !now.Before(d.expires):
		return nil, refuse(70020, "")
	case d.declined:
		return nil, refuse(70018, "")
	case d.user == "":
		early := !d.polled.IsZero() && now.Sub(d.polled) < deviceInterval
		d.polled = now
		if early && s.switches.SlowDown {
			return nil, &refusal{status: http.StatusBadRequest, err: "slow_down", code: 70016,
				text: "The device code is asked for too often."}
		}
		return nil, refuse(70016, "")
	case d.redeemed:
		return nil, refuse(54005, "")
	}
	if refused := s.failure(s.upnOf(d.user), app.ClientID); refused != nil {
		return nil, refused
	}
	u, refused := s.member(d.user)
	if refused != nil {
		return nil, refused
	}
	t := &refreshToken{
		user: d.user, client: app.ClientID, class: public, signedIn: d.signedIn, mfa: d.mfa, device: true,
		family: randomHex(8),
	}
	if refused := s.access(u, app, t, now); refused != nil {
		return nil, refused
	}
	w, refused := s.parseScopes(f.Get("scope") + " " + d.scope)
	if refused != nil {
		return nil, refused
	}
	body, refused := s.userTokens(app, u, w, f, "", !d.mfa.IsZero())
	if refused != nil {
		return nil, refused
	}
	d.redeemed = true
	if w.has("offline_access") {
		body["refresh_token"] = s.issueRefreshToken(t, now)
	}
	return body, nil
}

func (s *Server) clientCredentials(r *http.Request, app *App, f url.Values) (map[string]any, *refusal) {
	if refused := s.checkClient(r, app, confidential, f); refused != nil {
		return nil, refused
	}
	if refused := s.failure("", app.ClientID); refused != nil {
		return nil, refused
	}
	asked := slices.DeleteFunc(strings.Fields(f.Get("scope")), isOpenID) // MSAL adds these to every request
	scope, ok := strings.CutSuffix(strings.Join(asked, " "), "/.default")
	if !ok || len(asked) != 1 {
		return nil, refuse(70011, "Client credentials want <resource>/.default.")
	}
	res := s.resource(scope)
	if res == nil {
		return nil, refuse(500011, "")
	}
	now := time.Now()
	life := s.life()
	return map[string]any{
		"token_type": "Bearer", "expires_in": s.seconds(life), "ext_expires_in": s.seconds(life),
		"access_token": s.sign(map[string]any{
			"iss": "https://sts.windows.net/" + s.cfg.Tenant + "/", "aud": audience(res, scope),
			"sub": app.ObjectID, "oid": app.ObjectID,
			"tid": s.cfg.Tenant, "appid": app.ClientID, "idtyp": "app",
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(life).Unix(), "uti": randomHex(11),
		}),
	}, nil
}

// userTokens makes the answer for a signed-in user, without a refresh token.
func (s *Server) userTokens(
	app *App, u *user, w *wanted, f url.Values, nonce string, mfa bool,
) (map[string]any, *refusal) {
	names, refused := s.grant(u.ObjectID, app, w)
	if refused != nil {
		return nil, refused
	}
	life := s.life()
	body := map[string]any{
		"token_type": "Bearer", "expires_in": s.seconds(life), "ext_expires_in": s.seconds(life),
		"access_token": s.accessToken(app, u, w, names, mfa),
	}
	if !s.switches.OmitScope {
		body["scope"] = strings.Join(grantedScopes(w, names), " ")
	}
	if s.switches.RefreshIn > 0 {
		body["refresh_in"] = s.seconds(s.switches.RefreshIn)
	}
	if w.has("openid") && !s.switches.OmitIDToken {
		body["id_token"] = s.idToken(app, u, w, nonce)
	}
	if f.Get("client_info") == "1" && !s.switches.OmitClientInfo {
		uid, utid := u.ObjectID, s.cfg.Tenant
		if u.Home != "" { // an account is named by its home
			uid, utid = u.HomeObjectID, u.Home
		}
		body["client_info"] = b64(fmt.Sprintf(`{"uid":%q,"utid":%q}`, uid, utid))
	}
	return body, nil
}

// accessToken is for the resource that the scopes belong to, or else for
// Microsoft Graph.
func (s *Server) accessToken(app *App, u *user, w *wanted, names []string, mfa bool) string {
	now := time.Now()
	token := map[string]any{
		"iss": "https://sts.windows.net/" + s.cfg.Tenant + "/", "aud": "00000003-0000-0000-c000-000000000000",
		"sub": u.ObjectID, "oid": u.ObjectID, "tid": s.cfg.Tenant, "upn": u.UPN, "unique_name": u.UPN, "name": u.Name,
		"appid": app.ClientID, "idtyp": "user", "scp": strings.Join(names, " "), "xms_gen": u.generation,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(s.life()).Unix(), "uti": randomHex(11),
		"amr": []string{"pwd"},
	}
	if mfa {
		token["amr"] = []string{"pwd", "mfa"}
	}
	if u.Home != "" {
		token["idp"], token["unique_name"], token["email"] = homeIssuer(u), u.signInName(), u.signInName()
	}
	if w.resource != nil {
		token["aud"] = audience(w.resource, w.prefix)
	}
	return s.sign(token)
}

// grantedScopes are an answer's scopes, as the client has named the resource.
func grantedScopes(w *wanted, names []string) []string {
	var granted []string
	if w.resource != nil {
		for _, n := range names {
			granted = append(granted, strings.TrimPrefix(w.prefix+"/"+n, "/"))
		}
		if w.all {
			granted = append(granted, w.prefix+"/.default")
		}
	}
	for _, n := range w.openID {
		if n != "offline_access" {
			granted = append(granted, n)
		}
	}
	return granted
}

func (s *Server) idToken(app *App, u *user, w *wanted, nonce string) string {
	now := time.Now()
	id := map[string]any{
		"iss": s.Issuer(), "aud": app.ClientID, "sub": pairwise(u, app), "oid": u.ObjectID, "tid": s.cfg.Tenant,
		"ver": "2.0", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	if w.has("profile") {
		id["preferred_username"], id["name"] = u.signInName(), u.Name
	}
	if w.has("email") && u.Mail != "" {
		id["email"] = u.Mail
	}
	if u.Home != "" {
		id["idp"] = homeIssuer(u)
	}
	if nonce != "" {
		id["nonce"] = nonce
	}
	if roles := s.rolesOf(u, app); len(roles) > 0 {
		id["roles"] = roles
	}
	if change := s.switches.IDToken; change != nil {
		change(id)
	}
	return s.sign(id)
}

// pairwise is the subject by which one app knows a user.
func pairwise(u *user, app *App) string {
	sum := sha256.Sum256([]byte(u.ObjectID + " " + app.ClientID))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// homeIssuer is the tenant that vouches for a guest.
func homeIssuer(u *user) string { return "https://sts.windows.net/" + u.Home + "/" }

func (s *Server) life() time.Duration {
	if s.switches.AccessTokenLife > 0 {
		return s.switches.AccessTokenLife
	}
	return defaultLife
}

func (s *Server) seconds(d time.Duration) any {
	if s.switches.NumbersAsStrings {
		return fmt.Sprint(int(d.Seconds()))
	}
	return int(d.Seconds())
}

func audience(res *Resource, asked string) string {
	if res.Audience != "" {
		return res.Audience
	}
	return asked
}
