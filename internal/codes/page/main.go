// Command page writes docs/codes.md from the table of codes and from Entra's numbers.
// It is run by `go generate ./internal/codes`, and is no part of the app.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/azure-patrol/patrol/internal/codes"
	"github.com/azure-patrol/patrol/internal/entra"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: page <file to write>")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], page(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const head = `<!-- Made by go generate ./internal/codes from internal/codes/codes.go and internal/entra. Edit those. -->

# Codes, and what to do about them

A failure of patrol has a *class*, which decides what patrol does next, and a *code*, which says what has happened.
The classes are explained in [reliability](reliability.md#what-happens-after-a-failure); this page is the list of
codes. The message beside a code has the names of the case: which secret, which organization, which user.

Codes are stable: programs may compare them. Those that a service has made up are marked *(theirs)*.

`

// page is the whole of docs/codes.md.
func page() []byte {
	var b bytes.Buffer
	b.WriteString(head)
	for _, g := range codes.Table() {
		fmt.Fprintf(&b, "## %s\n\nWhere: %s\n\n| code | means | do |\n| --- | --- | --- |\n", g.Title, g.Where)
		for _, e := range g.Entries {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", names(e), e.Means, e.Do)
		}
		b.WriteByte('\n')
	}
	b.WriteString("## Entra's numbers\n\n" +
		"Any other number is shown as it is; the class goes by the OAuth error beside it. " +
		"*Cause* is the attribute of the log line and what the pages go by.\n\n" +
		"| code | cause | means, and what to do |\n| --- | --- | --- |\n")
	for _, m := range entra.Meanings() {
		cause := "it passes"
		if m.Cause != "" {
			cause = "`" + string(m.Cause) + "`"
		}
		fmt.Fprintf(&b, "| `AADSTS%d` | %s | %s |\n", m.Number, cause, m.Words)
	}
	return b.Bytes()
}

func names(e codes.Entry) string {
	quoted := make([]string, len(e.Codes))
	for i, c := range e.Codes {
		quoted[i] = "`" + c + "`"
	}
	out := strings.Join(quoted, ", ")
	if e.Service {
		out += " *(theirs)*"
	}
	return out
}
