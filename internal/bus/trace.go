package bus

import "context"

// Application properties of a message that carry its trace, as W3C trace contexts.
const (
	// TraceParent continues the trace in which the message was sent.
	TraceParent = "traceparent"
	// DiagnosticID is the same by the name that Azure's SDKs know.
	DiagnosticID = "Diagnostic-Id"
	// TraceLink is on commands that are scheduled: the work on them is another
	// trace, hours or weeks later, and points back to this one.
	TraceLink = "tracelink"
)

// Trace is one send as whoever records it sees it.
type Trace struct {
	Parent string      // W3C trace context of the send; empty: it is not recorded
	Done   func(error) // called at its end; nil: nobody needs to know
}

// trace begins a send.
func (b *Bus) trace(ctx context.Context, destination string, messages int) (context.Context, Trace) {
	if b.config.Trace == nil {
		return ctx, Trace{}
	}
	return b.config.Trace(ctx, destination, messages)
}

func (t Trace) end(err error) {
	if t.Done != nil {
		t.Done(err)
	}
}

// properties carry the trace with a message; nil if there is none.
func (t Trace) properties(scheduled bool) map[string]any {
	switch {
	case t.Parent == "":
		return nil
	case scheduled:
		return map[string]any{TraceLink: t.Parent}
	}
	return map[string]any{TraceParent: t.Parent, DiagnosticID: t.Parent}
}
