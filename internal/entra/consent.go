package entra

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// lacking is what an identity asks for beside the scopes of PATs, and Entra does not
// grant: consent is missing.
type lacking struct {
	scopes []string
	until  time.Time // when all of them are asked for again
}

// refresh redeems the refresh token for all of the identity's scopes. If consent to some
// of them is missing, that stops only what needs them: the token is for the others.
func (a *account) refresh(ctx context.Context, client msalClient, homeID, claims string) (public.AuthResult,
	*rotation.Error) {
	try := func(scopes []string) (public.AuthResult, *rotation.Error) {
		r, err := client.refresh(ctx, homeID, scopes, claims)
		if err != nil {
			return r, a.refreshFailure(client, err, a.client.cfg.Now())
		}
		return r, nil
	}
	own := len(patScopes())
	isKnown := len(a.state.lacks.scopes) > 0 && a.client.cfg.Now().Before(a.state.lacks.until)
	asked := a.scopes
	if isKnown {
		asked = a.state.lacks.without(a.scopes)
	}
	r, e := try(asked)
	switch {
	case e == nil && !isKnown:
		a.state.lacks = lacking{}
		return r, nil
	case e == nil || !NeedsAdminConsent(e) || len(a.scopes) == own:
		return r, e
	}
	refused := e
	kept := slices.Clone(a.scopes[:own])
	r, e = try(kept)
	if e != nil {
		return r, e
	}
	lacks := lacking{until: a.client.cfg.Now().Add(notifyEvery)}
	for _, scope := range a.scopes[own:] {
		more := append(slices.Clone(kept), scope)
		if len(more) == len(a.scopes) { // all of them, which Entra has just refused
			lacks.scopes = append(lacks.scopes, scope)
			break
		}
		wider, e := try(more)
		if e == nil {
			r, kept = wider, more
			continue
		}
		if !NeedsAdminConsent(e) { // nobody knows: the next refresh asks again
			lacks.until = time.Time{}
		}
		lacks.scopes = append(lacks.scopes, scope)
	}
	a.state.lacks = lacks
	a.warn(ctx, "Entra does not grant every permission of an administrator's identity: what needs the others works; "+
		"grant admin consent to them, then sign in again", "code", refused.Code, "scopes", lacks.names())
	return r, nil
}

// without are the scopes that are not lacking.
func (l lacking) without(scopes []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), l.has)
}

func (l lacking) has(scope string) bool { return slices.Contains(l.scopes, scope) }

// names are the lacking scopes without their resource.
func (l lacking) names() string {
	var names []string
	for _, s := range l.scopes {
		names = append(names, s[strings.LastIndexByte(s, '/')+1:])
	}
	return strings.Join(names, " ")
}
