package web

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// auditDays is how far back the organization's audit log is read, and
	// auditTimeout for how long.
	auditDays    = 30
	auditLimit   = 200
	auditTimeout = 10 * time.Second
	// auditAge is how long an answer counts: it is read as an administrator, in up to a
	// hundred pages.
	auditAge = 5 * time.Minute
	// maxAudits bounds what is kept.
	maxAudits = 100
)

// PATAudit is what the organization's own audit log says of a PAT and the ones before it.
type PATAudit struct {
	PAT  string    `json:"pat"`
	At   time.Time `json:"at"`   // when the log was read
	From time.Time `json:"from"` // since when
	// Events name who did it and from which address.
	Events []administration.AuditEntry `json:"events"`
}

// audits keeps what was read, by the PAT's name.
type audits struct {
	mu   sync.Mutex
	kept map[string]PATAudit
}

func (m *audits) get(name string, now time.Time) (PATAudit, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out, ok := m.kept[strings.ToLower(name)]
	return out, ok && now.Sub(out.At) < auditAge
}

func (m *audits) keep(out PATAudit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil || len(m.kept) >= maxAudits {
		m.kept = map[string]PATAudit{}
	}
	m.kept[strings.ToLower(out.PAT)] = out
}

// AuditOf reads the organization's audit log for a PAT. It holds addresses of people's
// machines, so that it is for administrators.
func (a *API) AuditOf(ctx context.Context, name string) (PATAudit, *Problem) {
	s, ok := a.Reconciler.Spec(name)
	if !ok {
		return PATAudit{}, unknownPAT()
	}
	now := a.Now()
	if out, ok := a.audits.get(s.Name, now); ok {
		return out, nil
	}
	if a.Audit == nil {
		return PATAudit{}, noAdministrator()
	}
	versions, err := a.Versions.Versions(ctx, s.Name)
	if err != nil {
		return PATAudit{}, a.upstream(ctx, err)
	}
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	from := now.AddDate(0, 0, -auditDays)
	page, err := a.Audit(ctx, s.Owner(), administration.AuditQuery{From: from, Limit: auditLimit})
	if err != nil {
		return PATAudit{}, a.revocationProblem(ctx, err)
	}
	out := PATAudit{PAT: s.Name, At: now.UTC(), From: from.UTC(), Events: ofVersions(page.Entries, versions)}
	a.audits.keep(out)
	return out, nil
}

// ofVersions chooses the entries about a secret's PATs.
func ofVersions(entries []administration.AuditEntry, versions []rotation.Version) []administration.AuditEntry {
	ids := map[string]bool{}
	for _, v := range versions {
		if id := v.Ledger.AuthorizationID; id != "" {
			ids[strings.ToLower(id)] = true
		}
	}
	out := []administration.AuditEntry{}
	for _, e := range entries {
		if ids[strings.ToLower(e.AuthorizationID)] {
			out = append(out, e)
		}
	}
	return out
}

func noAdministrator() *Problem {
	return &Problem{Status: http.StatusConflict, Type: typeNoAdministrator, Title: "No identity is an administrator",
		Detail: "Mark the identity of a Project Collection Administrator with administrator: true in the " +
			"manifest, and let its user sign in."}
}

// getPATAudit: GET pats/{name}/audit.
func (a *API) getPATAudit(w http.ResponseWriter, r *http.Request) {
	out, p := a.AuditOf(r.Context(), r.PathValue("name"))
	a.reply(w, r, http.StatusOK, out, p)
}
