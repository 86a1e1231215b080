package functionshost

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// template is an ASP.NET route template, such as api/pats/{name:regex(^[a-z]+$)}.
type template struct {
	text     string
	segments []segment
}

// segment is what stands between two slashes. Either literal is set, or parts
// (and pattern, where parts mix literals and parameters).
type segment struct {
	literal string
	param   *parameter // the only part
	parts   []*parameter
	pattern *regexp.Regexp
}

type parameter struct {
	name        string
	optional    bool
	catchAll    bool
	fallback    *string
	constraints []constraint
}

type constraint struct {
	name  string
	match func(string) bool
}

func (p *parameter) accepts(value string) bool {
	for _, c := range p.constraints {
		if !c.match(value) {
			return false
		}
	}
	return true
}

func parseTemplate(text string) (*template, error) {
	t := &template{text: text}
	if text == "" {
		return t, nil
	}
	pieces, err := splitTemplate(text)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for i, piece := range pieces {
		if piece == "" {
			return nil, fmt.Errorf("an empty segment ('//')")
		}
		s, err := parseSegment(piece)
		if err != nil {
			return nil, err
		}
		params := s.parts
		if s.param != nil {
			params = []*parameter{s.param}
			if (s.param.catchAll || s.param.optional) && i != len(pieces)-1 {
				return nil, fmt.Errorf("parameter '%s' may only stand at the end", s.param.name)
			}
		}
		for _, p := range params {
			if key := strings.ToLower(p.name); names[key] {
				return nil, fmt.Errorf("parameter '%s' appears more than once", p.name)
			} else {
				names[key] = true
			}
		}
		t.segments = append(t.segments, s)
	}
	return t, nil
}

// splitTemplate splits at slashes outside braces; doubled braces are escapes.
func splitTemplate(text string) ([]string, error) {
	var (
		pieces []string
		start  int
		inside bool
	)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case (c == '{' || c == '}') && i+1 < len(text) && text[i+1] == c:
			i++
		case c == '{':
			if inside {
				return nil, fmt.Errorf("a '{' within a parameter")
			}
			inside = true
		case c == '}':
			if !inside {
				return nil, fmt.Errorf("a '}' without its '{'")
			}
			inside = false
		case c == '/' && !inside:
			pieces = append(pieces, text[start:i])
			start = i + 1
		case c == '?' && !inside:
			return nil, fmt.Errorf("a literal '?'")
		}
	}
	if inside {
		return nil, fmt.Errorf("a '{' without its '}'")
	}
	return append(pieces, text[start:]), nil
}

var unescapeBraces = strings.NewReplacer("{{", "{", "}}", "}")

func parseSegment(text string) (segment, error) {
	var (
		s       segment
		pattern strings.Builder
		literal bool
	)
	pattern.WriteString("(?i)^")
	for rest := text; rest != ""; {
		open := openingBrace(rest)
		if open != 0 {
			piece := rest
			if open > 0 {
				piece = rest[:open]
			}
			literal = true
			pattern.WriteString(regexp.QuoteMeta(unescapeBraces.Replace(piece)))
			rest = rest[len(piece):]
			continue
		}
		end := closingBrace(rest)
		p, err := parseParameter(rest[1:end])
		if err != nil {
			return segment{}, err
		}
		s.parts = append(s.parts, p)
		if p.optional {
			pattern.WriteString("(.*)")
		} else {
			pattern.WriteString("(.+)")
		}
		rest = rest[end+1:]
	}
	switch {
	case len(s.parts) == 0:
		return segment{literal: unescapeBraces.Replace(text)}, nil
	case len(s.parts) == 1 && !literal:
		return segment{param: s.parts[0]}, nil
	case !literal:
		return segment{}, fmt.Errorf("two parameters without a literal between them")
	}
	for _, p := range s.parts {
		if p.catchAll {
			return segment{}, fmt.Errorf("catch-all parameter '%s' beside a literal", p.name)
		}
	}
	re, err := regexp.Compile(pattern.String() + "$")
	if err != nil {
		return segment{}, err
	}
	s.pattern = re
	return s, nil
}

// openingBrace finds a brace that opens a parameter; -1: none.
func openingBrace(text string) int {
	for i := 0; i < len(text); i++ {
		if text[i] == '{' {
			if i+1 < len(text) && text[i+1] == '{' {
				i++
				continue
			}
			return i
		}
	}
	return -1
}

// closingBrace finds the brace that closes the parameter text begins with.
func closingBrace(text string) int {
	for i := 1; i < len(text); i++ {
		if c := text[i]; c == '{' || c == '}' {
			if i+1 < len(text) && text[i+1] == c {
				i++
				continue
			}
			return i
		}
	}
	return len(text) - 1
}

func parseParameter(text string) (*parameter, error) {
	p := &parameter{}
	if rest, ok := strings.CutPrefix(text, "**"); ok {
		p.catchAll, text = true, rest
	} else if rest, ok := strings.CutPrefix(text, "*"); ok {
		p.catchAll, text = true, rest
	}
	end := strings.IndexAny(text, ":=?")
	if end < 0 {
		end = len(text)
	}
	p.name = text[:end]
	if p.name == "" || strings.ContainsAny(p.name, "/{}*") {
		return nil, fmt.Errorf("a parameter without a proper name")
	}
	for text = text[end:]; text != ""; {
		switch text[0] {
		case '?':
			if text != "?" {
				return nil, fmt.Errorf("parameter '%s': text after '?'", p.name)
			}
			p.optional = true
			text = ""
		case '=':
			value := text[1:]
			p.fallback = &value
			text = ""
		default: // ':'
			spec := constraintText(text[1:])
			text = text[1+len(spec):]
			c, err := parseConstraint(unescapeBraces.Replace(spec))
			if err != nil {
				return nil, fmt.Errorf("parameter '%s': %w", p.name, err)
			}
			p.constraints = append(p.constraints, c)
		}
	}
	return p, nil
}

// constraintText is the constraint that text begins with: up to the next ':',
// '=' or '?' outside parentheses.
func constraintText(text string) string {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ':', '=', '?':
			if depth == 0 {
				return text[:i]
			}
		}
	}
	return text
}

var (
	guidPattern = regexp.MustCompile(`^(?i)(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}|\([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\))$`)
	alpha       = regexp.MustCompile(`^(?i)[a-z]*$`)
)

func parseConstraint(text string) (constraint, error) {
	name, args := text, ""
	if i := strings.IndexByte(text, '('); i >= 0 && strings.HasSuffix(text, ")") {
		name, args = text[:i], text[i+1:len(text)-1]
	}
	c := constraint{name: strings.ToLower(name)}
	whole := func(bits int) func(string) bool {
		return func(v string) bool { _, err := strconv.ParseInt(v, 10, bits); return err == nil }
	}
	numbers := func(want ...int) ([]int64, error) {
		pieces := strings.Split(args, ",")
		for _, n := range want {
			if len(pieces) == n {
				out := make([]int64, n)
				for i, piece := range pieces {
					v, err := strconv.ParseInt(strings.TrimSpace(piece), 10, 64)
					if err != nil {
						return nil, fmt.Errorf("constraint '%s' wants numbers", text)
					}
					out[i] = v
				}
				return out, nil
			}
		}
		return nil, fmt.Errorf("constraint '%s' has a wrong number of arguments", text)
	}
	var err error
	switch c.name {
	case "int":
		c.match = whole(32)
	case "long":
		c.match = whole(64)
	case "decimal", "double", "float":
		c.match = func(v string) bool { _, err := strconv.ParseFloat(v, 64); return err == nil }
	case "bool":
		c.match = func(v string) bool { return strings.EqualFold(v, "true") || strings.EqualFold(v, "false") }
	case "datetime":
		c.match = func(v string) bool {
			for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02", "01/02/2006"} {
				if _, err := time.Parse(layout, v); err == nil {
					return true
				}
			}
			return false
		}
	case "guid":
		c.match = guidPattern.MatchString
	case "alpha":
		c.match = alpha.MatchString
	case "required":
		c.match = func(v string) bool { return v != "" }
	case "regex":
		re, e := regexp.Compile("(?i)" + args)
		if err = e; err == nil {
			c.match = re.MatchString
		}
	case "minlength", "maxlength", "length", "min", "max", "range":
		var n []int64
		switch c.name {
		case "length":
			n, err = numbers(1, 2)
		case "range":
			n, err = numbers(2)
		default:
			n, err = numbers(1)
		}
		if err != nil {
			break
		}
		number := func(in func(int64) bool) func(string) bool {
			return func(v string) bool { i, err := strconv.ParseInt(v, 10, 64); return err == nil && in(i) }
		}
		switch c.name {
		case "minlength":
			c.match = func(v string) bool { return int64(len([]rune(v))) >= n[0] }
		case "maxlength":
			c.match = func(v string) bool { return int64(len([]rune(v))) <= n[0] }
		case "length":
			c.match = func(v string) bool { l := int64(len([]rune(v))); return l >= n[0] && l <= n[len(n)-1] }
		case "min":
			c.match = number(func(i int64) bool { return i >= n[0] })
		case "max":
			c.match = number(func(i int64) bool { return i <= n[0] })
		case "range":
			c.match = number(func(i int64) bool { return i >= n[0] && i <= n[1] })
		}
	default:
		err = fmt.Errorf("the constraint '%s' is unknown", name)
	}
	return c, err
}

// match matches a path (as URL.EscapedPath has it) and returns the parameters;
// an optional one that is missing is nil.
func (t *template) match(path string) (map[string]*string, bool) {
	path = strings.TrimPrefix(path, "/")
	path = strings.TrimSuffix(path, "/")
	var pieces []string
	if path != "" {
		pieces = strings.Split(path, "/")
	}
	for i, p := range pieces {
		v, err := decodeSegment(p)
		if err != nil {
			return nil, false
		}
		pieces[i] = v
	}
	params := map[string]*string{}
	for i, s := range t.segments {
		if s.param != nil && s.param.catchAll {
			v := ""
			if i < len(pieces) {
				v = strings.Join(pieces[i:], "/")
			} else if s.param.fallback != nil {
				v = *s.param.fallback
			}
			params[s.param.name] = &v
			return params, s.param.accepts(v)
		}
		if i >= len(pieces) {
			p := s.param
			if p == nil || !p.optional && p.fallback == nil {
				return nil, false
			}
			params[p.name] = p.fallback
			continue
		}
		v := pieces[i]
		switch {
		case s.param != nil:
			if v == "" || !s.param.accepts(v) {
				return nil, false
			}
			params[s.param.name] = &v
		case s.pattern != nil:
			m := s.pattern.FindStringSubmatch(v)
			if m == nil {
				return nil, false
			}
			for j, p := range s.parts {
				if !p.accepts(m[j+1]) {
					return nil, false
				}
				params[p.name] = &m[j+1]
			}
		case !strings.EqualFold(s.literal, v):
			return nil, false
		}
	}
	return params, len(pieces) <= len(t.segments)
}

// decodeSegment decodes percent escapes other than %2F, which ASP.NET leaves.
func decodeSegment(s string) (string, error) {
	s = strings.ReplaceAll(s, "%2F", "%252F")
	s = strings.ReplaceAll(s, "%2f", "%252f")
	return url.PathUnescape(s)
}

// overlaps tells whether some path matches both templates; where constraints
// leave it open, it says yes.
func (t *template) overlaps(o *template) bool { return meetSegments(t.segments, o.segments) }

func meetSegments(a, b []segment) bool {
	canEnd := func(rest []segment) bool {
		for _, s := range rest {
			if s.param == nil || !s.param.optional && !s.param.catchAll && s.param.fallback == nil {
				return false
			}
		}
		return true
	}
	if len(a) == 0 || len(b) == 0 {
		return canEnd(a) && canEnd(b)
	}
	if a[0].param != nil && a[0].param.catchAll || b[0].param != nil && b[0].param.catchAll {
		return true
	}
	if canEnd(a) && canEnd(b) {
		return true
	}
	return a[0].meets(b[0]) && meetSegments(a[1:], b[1:])
}

func (s segment) meets(o segment) bool {
	if s.literal == "" && o.literal != "" {
		s, o = o, s
	}
	switch {
	case s.literal != "" && o.literal != "":
		return strings.EqualFold(s.literal, o.literal)
	case s.literal != "" && o.param != nil:
		return o.param.accepts(s.literal)
	case s.literal != "":
		return o.pattern.MatchString(s.literal)
	case s.param != nil && o.param != nil:
		return !disjoint(s.param, o.param)
	}
	return true
}

// disjoint knows the few pairs of constraints that no value satisfies together.
func disjoint(a, b *parameter) bool {
	kind := func(p *parameter) string {
		for _, c := range p.constraints {
			switch c.name {
			case "int", "long", "min", "max", "range":
				return "number"
			case "guid", "bool", "datetime":
				return c.name
			case "alpha":
				return c.name
			}
		}
		return ""
	}
	x, y := kind(a), kind(b)
	if x == "" || y == "" || x == y {
		return false
	}
	// 32 digits are a guid but no int64; "true" is alpha, and so may a guid be.
	pair := func(p, q string) bool { return x == p && y == q || x == q && y == p }
	return !pair("alpha", "bool") && !pair("alpha", "guid")
}
