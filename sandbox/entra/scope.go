package entra

import (
	"slices"
	"strings"
)

var openID = []string{"openid", "offline_access", "profile", "email"}

func isOpenID(scope string) bool { return slices.Contains(openID, strings.ToLower(scope)) }

// splitScope finds the resource of a scope: "<id or URI>/<name>", or a bare
// name of Microsoft Graph.
func (s *Server) splitScope(scope string) (*Resource, string, *refusal) {
	name, resource := scope, "https://graph.microsoft.com"
	if i := strings.LastIndexByte(scope, '/'); i >= 0 {
		resource, name = scope[:i], scope[i+1:]
	}
	res := s.resource(resource)
	if res == nil {
		return nil, "", refuse(500011, "")
	}
	known := slices.ContainsFunc(res.Scopes, func(n string) bool { return strings.EqualFold(n, name) })
	if name != ".default" && !known {
		return nil, "", refuse(650053, "")
	}
	return res, name, nil
}

func (s *Server) scopeKey(scope string) string {
	res, name, err := s.splitScope(scope)
	if err != nil {
		return strings.ToLower(scope)
	}
	return strings.ToLower(res.ID + "/" + name)
}

// wanted is what the scopes of one request ask for.
type wanted struct {
	resource *Resource // nil: OpenID scopes only
	prefix   string    // the resource's name, as asked
	names    []string  // of permissions; "" never
	all      bool      // .default
	openID   []string
}

func (w *wanted) has(scope string) bool { return slices.Contains(w.openID, scope) }

// parseScopes checks that the scopes exist and belong to one resource.
func (s *Server) parseScopes(scope string) (*wanted, *refusal) {
	w := &wanted{}
	for f := range strings.FieldsSeq(scope) {
		if isOpenID(f) {
			w.openID = append(w.openID, strings.ToLower(f))
			continue
		}
		res, name, refused := s.splitScope(f)
		if refused != nil {
			return nil, refused
		}
		if res.Disabled {
			return nil, refuse(500014, "")
		}
		if w.resource != nil && w.resource != res {
			return nil, refuse(28000, "")
		}
		w.resource = res
		if i := strings.LastIndexByte(f, '/'); i >= 0 {
			w.prefix = f[:i]
		}
		if name == ".default" {
			w.all = true
		} else {
			w.names = append(w.names, name)
		}
	}
	if w.all && len(w.names) > 0 {
		return nil, refuse(70011, ".default can't be combined with other scopes.")
	}
	if w.resource == nil && len(w.openID) == 0 {
		return nil, refuse(900144, "scope")
	}
	return w, nil
}

// grant decides which permissions a token gets.
func (s *Server) grant(user string, app *App, w *wanted) ([]string, *refusal) {
	if w.resource == nil {
		return nil, nil
	}
	have := s.consented(user, app, w.resource)
	if w.all {
		if len(have) == 0 {
			return nil, refuse(65001, "")
		}
		return have, nil
	}
	var out []string
	for _, name := range w.names {
		i := slices.IndexFunc(have, func(n string) bool { return strings.EqualFold(n, name) })
		switch {
		case i >= 0:
			out = append(out, have[i])
		case !s.switches.GrantLess:
			return nil, refuse(65001, "")
		}
	}
	if len(out) == 0 {
		return nil, refuse(65001, "")
	}
	return out, nil
}
