package rotation

import (
	"context"
	"log/slog"
)

// Record is the audit line of one action, whoever caused it and however it ended.
type Record struct {
	Who     string // a person's or a system's name; patrol itself: patrol
	Trigger string // http, dashboard, command
	Act     string // rotate, revoke, extend, adopt, sweep, revoke-pats
	Target  string // a PAT's name, an authorization id, users
	Outcome string // done, repeated, or what it failed of
	// Identity and Organization are whose PAT it is about; empty: of several, or not known.
	Identity, Organization string
	// Route is that of the HTTP function; empty: another way than HTTP.
	Route    string
	Activity string // the operation's id, or Azure's own name for the call that failed
}

// Write puts the record into the log; more are further attributes.
func (r Record) Write(ctx context.Context, log *slog.Logger, more ...any) {
	who := plain(r.Who, maxName)
	if who == "" {
		who = "patrol"
	}
	as := []any{"who", who, "trigger", r.Trigger, "act", r.Act, "target", r.Target, "outcome", r.Outcome, "activity",
		r.Activity}
	for _, a := range [][2]string{{"identity", r.Identity}, {"organization", r.Organization}, {"route", r.Route}} {
		if a[1] != "" {
			as = append(as, a[0], a[1])
		}
	}
	log.InfoContext(ctx, "audit", append(as, more...)...)
}
