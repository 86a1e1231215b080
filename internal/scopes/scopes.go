// Package scopes knows the scopes that an Azure DevOps personal access token can
// carry: which exist, which of them include others, which are highly privileged, under
// which names people know them, and which Azure DevOps gives to Microsoft Entra
// applications only.
//
// It is a table and a few questions to it. It must not know the manifest, HTTP
// or Azure DevOps' API: whoever asks decides what a verdict leads to.
package scopes

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is the outcome of a check.
type Kind int

const (
	// Refused: no PAT can have this scope.
	Refused Kind = iota
	// Unknown: plausible, but not in the documentation's list; new scopes
	// appear, so this is worth a warning and no more.
	Unknown
	// Known: in the documentation's list.
	Known
)

// FullAccess is the scope of a PAT that may do everything that its owner may.
const FullAccess = "app_token"

// Verdict is what is known about one scope.
type Verdict struct {
	Scope string
	Kind  Kind
	// Reason says in plain words why the scope is not Known, or, for a
	// powerful one, what is powerful about it. Empty: nothing to say.
	Reason string
	// Powerful: the documentation marks the scope as highly privileged.
	Powerful bool
	// Write is what was probably meant, in place of a scope that is not Known: one
	// scope, or several to choose from. Empty: nobody knows.
	Write []string
	// Includes are the scopes that come with it, directly or not, sorted.
	Includes []string
}

// Check judges one scope.
func Check(scope string) Verdict {
	v := Verdict{Scope: scope}
	if e, ok := lookup(scope); ok {
		v.Kind, v.Powerful = Known, e.powerful
		if v.Powerful {
			v.Reason = scope + " is highly privileged"
		}
		switch scope {
		case FullAccess:
			v.Reason = FullAccess +
				" is full access: it may do everything that its owner may, and many tenants forbid it"
		case "vso.tokens", "vso.tokenadministration":
			v.Reason = scope + " lets its bearer manage other tokens"
		}
		v.Includes = closure(e)
		return v
	}
	switch scope {
	case "":
		v.Reason = "a scope is empty"
		return v
	case "user_impersonation", "vso.pats", "vso.pats_manage":
		v.Reason = scope + " is for Microsoft Entra applications only: no personal access token can have it"
		return v
	case "vso.connectedserver":
		return misspelt(v, "vso.connected_server")
	case "vso.tokens_administration":
		v.Powerful = true
		return misspelt(v, "vso.tokenadministration")
	}
	if plausible(scope) {
		v.Kind, v.Reason = Unknown, scope+" is not in Azure DevOps' list of scopes: Azure DevOps may refuse it"
		return v
	}
	v.Write = meantBy(scope)
	v.Reason = fmt.Sprintf("%q is not a scope", scope)
	if len(v.Write) == 0 {
		v.Reason += ": scopes look like vso.build_execute"
	}
	return v
}

// misspelt judges a scope that is in use elsewhere, in place of one that exists.
func misspelt(v Verdict, known string) Verdict {
	v.Kind, v.Write = Unknown, []string{known}
	v.Reason = v.Scope + " is not in Azure DevOps' list of scopes; " + known + " is"
	return v
}

// meantBy finds the scopes for what is none: another spelling, or a name of the portal.
func meantBy(text string) []string {
	near := strings.ToLower(strings.TrimSpace(text))
	for _, name := range []string{near, "vso." + near} {
		if _, ok := lookup(name); ok {
			return []string{name}
		}
	}
	return byPortalName(text)
}

// Redundant finds the scopes that others of the same list include already: the
// key is the scope that can be left out, the value the one that includes it.
func Redundant(list []string) map[string]string {
	out := map[string]string{}
	for _, by := range slices.Sorted(slices.Values(list)) {
		for _, scope := range Check(by).Includes {
			if scope != by && out[scope] == "" && slices.Contains(list, scope) {
				out[scope] = by
			}
		}
		if by != FullAccess {
			continue
		}
		for _, scope := range list {
			if scope != FullAccess {
				out[scope] = FullAccess
			}
		}
	}
	return out
}

// plausible reports whether the scope matches ^vso\.[a-z0-9_.]+$.
func plausible(scope string) bool {
	rest, ok := strings.CutPrefix(scope, "vso.")
	return ok && rest != "" && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789_.") == ""
}

func lookup(scope string) (*entry, bool) {
	for i := range table {
		if table[i].name == scope {
			return &table[i], true
		}
	}
	return nil, false
}

// closure follows includes to their end: each scope includes one other at most.
func closure(e *entry) []string {
	var out []string
	for next := e.includes; next != ""; {
		out = append(out, next)
		e, ok := lookup(next)
		if !ok {
			break
		}
		next = e.includes
	}
	slices.Sort(out)
	return out
}
