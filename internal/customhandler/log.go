package customhandler

import (
	"context"
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"sync"
)

const redacted = "[redacted]"

// NewLog makes a logger that writes one JSON object per line to w, which should be
// stdout: the host takes every line of stderr for an error. A line begins with {
// and holds no line break, so none can pass for one of the host's own
// (LanguageWorkerConsoleLog..., azfuncjsonlog:...), whatever is logged.
//
// Inside an invocation the lines carry its id and function, if the ...Context
// methods are used. Keys of functions, authorization codes and tokens are taken
// out of texts, and values that could be a payload (bytes, requests, headers,
// structs) are replaced by the name of their type.
func NewLog(w io.Writer, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: replaceAttr}
	return slog.New(logHandler{slog.NewJSONHandler(w, options)})
}

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Message = Redact(r.Message)
	if i := Invocation(ctx); i != (Info{}) {
		r = r.Clone()
		r.AddAttrs(slog.String("function", i.Function), slog.String("invocation", i.ID))
	}
	return h.Handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(as)}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.Handler.WithGroup(name)}
}

func replaceAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return a
	}
	if secretName(a.Key) {
		return slog.String(a.Key, redacted)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Redact(a.Value.String()))
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String())
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case nil:
		case []string:
			clean := make([]string, len(v))
			for i, s := range v {
				clean[i] = Redact(s)
			}
			a.Value = slog.AnyValue(clean)
		case *url.URL:
			a.Value = slog.StringValue(Redact(v.String()))
		case error:
			a.Value = slog.StringValue(Redact(v.Error()))
		case fmt.Stringer:
			a.Value = slog.StringValue(Redact(v.String()))
		case encoding.TextMarshaler:
			b, err := v.MarshalText()
			if err != nil {
				b = []byte("[" + fmt.Sprintf("%T", v) + "]")
			}
			a.Value = slog.StringValue(Redact(string(b)))
		default:
			text := fmt.Sprintf("[%T]", v)
			if word := reflect.ValueOf(v); word.Kind() == reflect.String { // a class, a reason: a word of ours
				text = Redact(word.String())
			}
			a.Value = slog.StringValue(text)
		}
	}
	return a
}

// secretName reports whether a header or attribute of this name is secret as a whole.
func secretName(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "x-functions-key", "authorization", "proxy-authorization", "cookie", "set-cookie",
		"token", "password", "body", "payload":
		return true
	}
	return strings.HasPrefix(name, "x-ms-token-") || strings.HasPrefix(name, "x-ms-client-principal")
}

// patterns are compiled when the first suspicious text comes along, not at start.
var patterns = sync.OnceValue(func() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`(?i)([?&](?:code|state|sig|clientid|access_token|refresh_token|id_token|` +
			`client_secret|client_assertion|code_verifier)=)[^&#\s"'<>]+`),
		regexp.MustCompile(`(?i)(x-functions-key["']?\s*[:=]\s*["'\[]*)[^\s"'\],;&]+`),
		regexp.MustCompile(`(\b)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`), // a JWT
		regexp.MustCompile(`(\b)[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}\b`),                       // a PAT
	}
})

// Redact takes function keys, authorization codes, JWTs and PATs out of a text or
// URL. It is the last line of defence: such things should not get that far.
func Redact(s string) string {
	if !strings.ContainsAny(s, "=:") && !strings.Contains(s, "eyJ") && !strings.Contains(s, "AZDO") {
		return s
	}
	for _, p := range patterns() {
		s = p.ReplaceAllString(s, "${1}"+redacted)
	}
	return s
}
