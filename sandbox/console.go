package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// console prints one line for each thing that happened.
type console struct {
	out     io.Writer
	colours bool
	begun   time.Time

	mu sync.Mutex
}

func newConsole(out io.Writer, colours bool) *console {
	return &console{out: out, colours: colours, begun: time.Now()}
}

// The sources of lines; each has its colour on a terminal.
const (
	fromSandbox = "sandbox"
	fromDevOps  = "devops"
	fromVault   = "vault"
	fromEvent   = "event"
	fromHTTP    = "http"
	fromHost    = "host"
	fromYours   = "yours"
)

var colourOf = map[string]string{
	fromDevOps: "36", fromVault: "33", fromEvent: "32", fromHTTP: "35", fromHost: "31", fromSandbox: "2",
	fromYours: "34",
}

// print prints a line of one source.
func (c *console) print(from, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who := fmt.Sprintf("%-7s", from)
	if c.colours {
		who = "\x1b[" + colourOf[from] + "m" + who + "\x1b[0m"
	}
	fmt.Fprintf(c.out, "%6.1fs  %s  %s\n", time.Since(c.begun).Seconds(), who, oneLine(fmt.Sprintf(format, args...)))
}

// printText prints text as it is.
func (c *console) printText(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(c.out, text)
}

// oneLine keeps what others have written (names, messages) from breaking the
// output, or a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// short shortens an id to what a person compares.
func short(id string) string { return id[:min(len(id), 8)] }
