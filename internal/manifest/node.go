package manifest

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// This file is about YAML, and knows no rule of the manifest.

// parser collects findings while it walks the nodes of a file. It works on nodes, not
// on decoded values: only they know lines and columns. It follows an alias to
// its anchor where a value is expected and never expands one, so the depth of the
// walk is that of the format, whatever the file does.
type parser struct {
	file     string
	findings Findings
	warnings []Warning
}

// problem notes what is wrong at n. what and do are sentences without capitals and
// full stops.
func (p *parser) problem(n *yaml.Node, do, what string, args ...any) {
	p.findings = append(p.findings, p.finding(n, do, what, args...))
}

func (p *parser) finding(n *yaml.Node, do, what string, args ...any) Finding {
	return Finding{File: p.file, Line: n.Line, Column: n.Column, What: fmt.Sprintf(what, args...), Do: do}
}

func (p *parser) warn(n *yaml.Node, do, what string, args ...any) {
	if len(p.warnings) >= maxProblems {
		return
	}
	p.warnings = append(p.warnings, p.finding(n, do, what, args...))
}

// document parses the one document of a file. nil: it noted why there is none.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > maxSize {
		p.findings = append(p.findings, Finding{File: p.file, Do: "split the PATs over several deployments",
			What: fmt.Sprintf("the file is larger than %d bytes", maxSize)})
		return nil
	}
	if f, bad := wrongEncoding(data); bad {
		f.File = p.file
		p.findings = append(p.findings, f)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if err == io.EOF {
		p.findings = append(p.findings, Finding{File: p.file, What: "the file is empty",
			Do: "begin with apiVersion: " + APIVersion})
		return nil
	}
	if err != nil {
		p.syntax(err, data)
		return nil
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		p.problem(&second, "keep one and remove the --- before it", "a second document begins here")
		return nil
	case err != io.EOF:
		p.syntax(err, data)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		p.problem(&doc, "begin with apiVersion: "+APIVersion, "the file is empty")
		return nil
	}
	return doc.Content[0]
}

// value follows an alias.
func value(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// field is a key of a mapping with its value. at is the place that a finding about the
// value names: the alias if there is one, not the anchor's far-away line.
type field struct{ key, at *yaml.Node }

// mapping reads the keys of n and notes those that are unknown, there twice, or no
// words. nil: n is no mapping, or merges another one, whose keys would all seem to be
// missing. explain may say more about a key that is not known.
func (p *parser) mapping(n *yaml.Node, is string, known []string,
	explain func(key string) (what, do string)) map[string]field {
	v := value(n)
	if v.Kind != yaml.MappingNode {
		p.problem(n, "write its keys below it, indented: "+strings.Join(known, ", "), "%s must be a mapping, not %s",
			is, kind(v))
		return nil
	}
	if len(v.Content) > 2*maxKeys {
		p.problem(n, "the keys here are "+strings.Join(known, ", "), "%s has %d keys", is, len(v.Content)/2)
		return nil
	}
	fields := map[string]field{}
	merges := false
	for i := 0; i+1 < len(v.Content); i += 2 {
		key, at := v.Content[i], v.Content[i+1]
		name, ok := p.key(key, is)
		merges = merges || key.Tag == mergeTag
		if !ok {
			continue
		}
		if first, twice := fields[name]; twice {
			p.problem(key, fmt.Sprintf("keep this one or the one in line %d", first.key.Line), "%s has %s twice", is,
				quote(name))
			continue
		}
		fields[name] = field{key, at}
		if slices.Contains(known, name) {
			continue
		}
		delete(fields, name) // an unknown key twice is unknown twice
		if explain != nil {
			if what, do := explain(name); what != "" {
				p.problem(key, do, "%s", what)
				continue
			}
		}
		do := "the keys here are " + strings.Join(known, ", ")
		if near := nearest(name, known); near != "" {
			do = fmt.Sprintf("did you mean %s?", near)
		}
		p.problem(key, do, "%s has an unknown key %s", is, quote(name))
	}
	if merges {
		return nil
	}
	return fields
}

// entries reads a mapping whose keys are names that the file chooses.
func (p *parser) entries(n *yaml.Node, is string) (fields []field, names []string) {
	v := value(n)
	if v.Kind != yaml.MappingNode {
		p.problem(n, "write one name and colon per line below it, indented", "%s must be a mapping, not %s", is,
			kind(v))
		return nil, nil
	}
	for i := 0; i+1 < len(v.Content); i += 2 {
		if name, ok := p.key(v.Content[i], is); ok {
			fields, names = append(fields, field{v.Content[i], v.Content[i+1]}), append(names, name)
		}
	}
	return fields, names
}

const mergeTag = "!!merge"

func (p *parser) key(key *yaml.Node, of string) (string, bool) {
	switch {
	case key.Kind != yaml.ScalarNode:
		p.problem(key, "write a plain word before the colon", "a key of %s is %s", of, kind(key))
	case key.Tag == mergeTag:
		p.problem(key, "write the keys out, or use an alias for one value", "merging with << is not supported")
	default:
		return key.Value, true
	}
	return "", false
}

// text reads a scalar as it stands in the file: 007 is a name like any other.
func (p *parser) text(n *yaml.Node, is, do string) (string, bool) {
	v := value(n)
	switch {
	case v.Kind != yaml.ScalarNode:
		p.problem(n, do, "%s must be text, not %s", is, kind(v))
	case v.Tag == "!!null" || v.Value == "":
		p.problem(n, do, "%s is empty", is)
	case v.Style&yaml.TaggedStyle != 0:
		p.problem(n, "remove the tag", "%s has a YAML tag", is)
	default:
		return v.Value, true
	}
	return "", false
}

// kind names what a node is, for people.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if n.Tag == "!!null" {
		return "empty"
	}
	return "a single value"
}

// quote shows what stands in the file, cut short.
func quote(s string) string {
	if r := []rune(s); len(r) > 40 {
		s = string(r[:40]) + "..."
	}
	return strconv.Quote(s)
}

// nearest finds what was probably meant: at most two edits away, or a third of a
// short word. Empty: nothing is near.
func nearest(word string, list []string) string {
	best, bestDistance := "", 3
	if len(word) > 64 || len(list) > 200 {
		return "" // not worth the search
	}
	for _, candidate := range list {
		d := distance(strings.ToLower(word), strings.ToLower(candidate))
		if d < bestDistance && d*3 <= max(len(word), len(candidate)) {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with a neighbour.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i < 2 || j < 2 {
				continue
			}
			if a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
