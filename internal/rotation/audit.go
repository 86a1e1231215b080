package rotation

import (
	"context"
	"log/slog"
)

// Record is the audit line of one action, whoever caused it and however it ended.
type Record struct {
	Who      string // a person's or a system's name; patrol itself: patrol
	Trigger  string // http, dashboard, command
	Act      string // rotate, revoke, extend, adopt, sweep, revoke-pats
	Target   string // a PAT's name, an authorization id, users
	Outcome  string // done, repeated, or what it failed of
	Activity string // the operation's id, or Azure's own name for the call that failed
}

// Write puts the record into the log; more are further attributes.
func (r Record) Write(ctx context.Context, log *slog.Logger, more ...any) {
	who := plain(r.Who, maxName)
	if who == "" {
		who = "patrol"
	}
	log.InfoContext(ctx, "audit", append([]any{"who", who, "trigger", r.Trigger, "act", r.Act, "target", r.Target,
		"outcome", r.Outcome, "activity", r.Activity}, more...)...)
}
