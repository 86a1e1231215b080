package customhandler

import (
	"context"
	"net/http"
	"strings"
)

// Info names an invocation.
type Info struct {
	ID       string // the host's id of this one call; a retry has another
	Function string // function name; for HTTP the pattern that matched
	// TraceParent is the W3C trace context that came with the call, the host's or a
	// client's; empty if there is none.
	TraceParent string
}

type infoKey struct{}

// Invocation gives the invocation that ctx belongs to; the zero Info outside of one.
func Invocation(ctx context.Context) Info {
	i, _ := ctx.Value(infoKey{}).(Info)
	return i
}

// invocationID takes the host's value: in the older forwarding mode it comes after one
// that the client has sent, as a second header or behind a comma.
func invocationID(h http.Header) string {
	values := h.Values("X-Azure-Functions-Invocationid")
	if len(values) == 0 {
		return ""
	}
	id := values[len(values)-1]
	id = strings.TrimSpace(id[strings.LastIndexByte(id, ',')+1:])
	if len(id) > 64 || strings.Trim(id, "0123456789abcdefABCDEF-") != "" {
		return "" // none of the host's: it would only confuse the log
	}
	return id
}

// traceParent takes a trace context that has the form of one.
func traceParent(h http.Header) string {
	v := h.Get("Traceparent")
	if len(v) < 55 || len(v) > 64 || strings.Trim(v, "0123456789abcdef-") != "" {
		return ""
	}
	return v
}
