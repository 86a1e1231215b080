// Package panics keeps a panic in a goroutine from ending the process, and with it every
// other invocation: it makes an error of it, for whoever waits for the goroutine.
//
// It must not know what the goroutines do. What was thrown may hold a payload, so that only
// the runtime's own errors are shown.
package panics

import (
	"fmt"
	"runtime"
	"strings"
)

// Error is a panic that was held.
type Error struct {
	what string
	at   string
}

func (e *Error) Error() string {
	return "a fault of patrol: panic " + e.what + " at " + e.at + ": report it"
}

// Held runs f, and gives its error, or what it has panicked with as one.
func Held(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Error{what: name(v), at: origin()}
		}
	}()
	return f()
}

func name(v any) string {
	if e, ok := v.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("%T", v)
}

// origin is where it was thrown: the first caller that is not of the runtime's.
func origin() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	hasPanicked := false
	for {
		f, more := frames.Next()
		isRuntime := strings.HasPrefix(f.Function, "runtime.")
		hasPanicked = hasPanicked || isRuntime
		if hasPanicked && !isRuntime {
			return fmt.Sprintf("%s:%d", f.Function, f.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}
