package manifest

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/azure-patrol/patrol/internal/scopes"
)

// This file knows what people write that YAML does not take, or takes for something
// else, and what they should write instead.

// wrongEncoding finds the first byte that is no text in UTF-8. Files in UTF-16 say so with
// their first two bytes, and are read.
func wrongEncoding(data []byte) (Finding, bool) {
	const do = "save the file as UTF-8"
	isUTF16 := bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff"))
	if isUTF16 {
		return Finding{}, false
	}
	first, more := Finding{}, 0
	line := 0
	for text := range bytes.Lines(data) {
		line++
		at := badByte(text)
		switch {
		case at < 0:
		case first.Line > 0:
			more++
		default:
			what := fmt.Sprintf("the byte %#02x here is not UTF-8 but another encoding, such as Latin-1", text[at])
			if text[at] == 0 {
				what = "a zero byte stands here, as in UTF-16"
			}
			first = Finding{Line: line, Column: utf8.RuneCount(text[:at]) + 1, What: what, Do: do}
		}
	}
	if more > 0 {
		first.What += fmt.Sprintf(" (there are more in %d other lines)", more)
	}
	return first, first.Line > 0
}

// badByte is the place of the first byte that is neither UTF-8 nor text; -1: none.
func badByte(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// A slip is something that people write which ends in an error of the YAML parser.
type slip struct {
	said string         // part of the parser's error
	line *regexp.Regexp // what the line then has
	what string
	do   func(line string) string
}

var slips = []slip{{
	line: regexp.MustCompile(`^[ -]*\t`),
	what: "the indentation of this line has a tab",
	do:   always("indent with blanks, the same number for each level"),
}, {
	said: "alphabetic or numeric character", // that a name of an anchor or alias has
	line: regexp.MustCompile(`(?i)organization["']?:[^#]*\*`),
	what: "organization * is not one organization",
	do:   always("a PAT is for one organization: declare one PAT for each, with a name of its own"),
}, {
	said: "alphabetic or numeric character",
	line: regexp.MustCompile(`\([^)#]*&\s`),
	what: "this looks like the portal's name of a scope, which YAML cannot read here",
	do:   scopesToWrite,
}, {
	said: "alphabetic or numeric character",
	line: regexp.MustCompile(`(^|[\s\[{,])[&*]([\s\]},]|$)`),
	what: "a & or * stands alone, with which YAML begins the name of an anchor or alias",
	do:   always("put the text in quotes"),
}, {
	said: "did not find expected ',' or",
	line: regexp.MustCompile(`\s#\S`),
	what: "a # after a blank begins a comment, which takes the rest of the line with its bracket",
	do:   always("put the text with the # in quotes"),
}, {
	said: "mapping values are not allowed",
	line: regexp.MustCompile(`:\s+[^"'\s][^"']*:(\s|$)`),
	what: "this line has a second colon with a blank after it",
	do:   always("put the text with the colon in quotes"),
}, {
	said: "cannot start any token",
	line: regexp.MustCompile("[\\s:\\[{,-][@`%]"),
	what: "a text here begins with @, ` or %",
	do:   always("put the text in quotes"),
}}

func always(do string) func(string) string { return func(string) string { return do } }

// scopesToWrite names the scopes for the portal's names in a line.
func scopesToWrite(line string) string {
	var found []string
	for _, name := range regexp.MustCompile(`[A-Za-z ]+\([^)]*\)`).FindAllString(line, -1) {
		if s := scopes.Check(strings.TrimSpace(name)).Write; len(s) == 1 {
			found = append(found, s[0])
		}
	}
	if len(found) == 0 {
		return "write the scope itself, such as vso.code_manage"
	}
	return "write " + strings.Join(found, ", ")
}

var lineOfError = regexp.MustCompile(`^line (\d+): `)

// syntax notes an error of the YAML parser. The parser knows a line at most, and counts
// some from 0 and others from 1.
func (p *parser) syntax(err error, data []byte) {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	at := 0
	if m := lineOfError.FindStringSubmatch(said); m != nil {
		at, _ = strconv.Atoi(m[1]) // digits by the expression
		said = said[len(m[0]):]
	}
	f := Finding{File: p.file, Line: at, What: "this is not YAML: " + said,
		Do: "look at the indentation, colons and quotes around here"}
	if s, line, text := findSlip(said, at, data); s != nil {
		f.Line, f.What, f.Do = line, s.what, s.do(text)
	}
	p.findings = append(p.findings, f)
}

// findSlip finds what an error of the parser comes from, and the line that has it: around
// the one that the parser names, or anywhere if it names none.
func findSlip(said string, at int, data []byte) (found *slip, line int, text string) {
	for i := range slips {
		s := &slips[i]
		if !strings.Contains(said, s.said) {
			continue
		}
		n := 0
		for raw := range bytes.Lines(data) {
			n++
			isNear := at == 0 || n >= at-1 && n <= at+1
			if text := strings.TrimRight(string(raw), "\r\n"); isNear && s.line.MatchString(text) {
				return s, n, text
			}
		}
	}
	return nil, 0, ""
}

// swallowed is the comment behind a plain text that was probably meant to belong to it:
// CI #1 agents. Empty: there is none, or it has the blank of a comment.
func swallowed(n *yaml.Node) string {
	c := n.LineComment
	isPlain := n.Kind == yaml.ScalarNode && n.Style == 0
	if !isPlain || len(c) < 2 || strings.ContainsAny(c[1:2], " \t#") {
		return ""
	}
	return c
}
