package functionshost

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// template is a route template such as api/pats/{name}/rotate: between two slashes
// stands a literal or a parameter. ASP.NET has more (constraints, optional and
// catch-all parameters, defaults, literals beside parameters), which is refused here.
type template struct {
	text     string
	segments []segment
}

// segment is what stands between two slashes.
type segment struct {
	literal   string // empty: a parameter, which takes any value
	parameter string
}

func parseTemplate(text string) (*template, error) {
	t := &template{text: text}
	if text == "" {
		return t, nil
	}
	names := map[string]bool{}
	for piece := range strings.SplitSeq(text, "/") {
		s, err := parseSegment(piece)
		if err != nil {
			return nil, err
		}
		if key := strings.ToLower(s.parameter); key != "" {
			if names[key] {
				return nil, fmt.Errorf("parameter '%s' appears more than once", s.parameter)
			}
			names[key] = true
		}
		t.segments = append(t.segments, s)
	}
	return t, nil
}

func parseSegment(text string) (segment, error) {
	if text == "" {
		return segment{}, errors.New("an empty segment ('//')")
	}
	if !strings.ContainsAny(text, "{}?") {
		return segment{literal: text}, nil
	}
	name, opened := strings.CutPrefix(text, "{")
	name, closed := strings.CutSuffix(name, "}")
	if !opened || !closed || !isParameterName(name) {
		return segment{}, fmt.Errorf("the segment '%s': this host offers literals and {parameters} only, "+
			"no constraints, no optional or catch-all parameters and no defaults", text)
	}
	return segment{parameter: name}, nil
}

func isParameterName(name string) bool {
	return name != "" && !strings.ContainsAny(name, "{}*:=?")
}

// match reports whether a path (as URL.EscapedPath has it) fits the template. Case
// does not count, nor does a slash at the end.
func (t *template) match(path string) bool {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	if path == "" {
		return len(t.segments) == 0
	}
	pieces := strings.Split(path, "/")
	if len(pieces) != len(t.segments) {
		return false
	}
	for i, s := range t.segments {
		value, err := decodeSegment(pieces[i])
		if err != nil || !s.match(value) {
			return false
		}
	}
	return true
}

func (s segment) match(value string) bool {
	if s.literal == "" {
		return value != ""
	}
	return strings.EqualFold(s.literal, value)
}

// decodeSegment decodes percent escapes other than %2F, which ASP.NET leaves.
func decodeSegment(s string) (string, error) {
	s = strings.ReplaceAll(s, "%2F", "%252F")
	s = strings.ReplaceAll(s, "%2f", "%252f")
	return url.PathUnescape(s)
}

// overlaps reports whether some path matches both templates.
func (t *template) overlaps(o *template) bool {
	if len(t.segments) != len(o.segments) {
		return false
	}
	for i, a := range t.segments {
		b := o.segments[i]
		bothLiteral := a.literal != "" && b.literal != ""
		if bothLiteral && !strings.EqualFold(a.literal, b.literal) {
			return false
		}
	}
	return true
}
