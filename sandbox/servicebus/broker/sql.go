package broker

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
)

// maxSQL is the service's limit for the text of a filter.
const maxSQL = 1024

// SQL is a filter in the service's dialect of SQL: comparisons, LIKE, IN, EXISTS, IS
// NULL, AND, OR, NOT over properties of the message and texts, numbers and booleans.
// Arithmetic and the functions of the dialect are refused.
type SQL struct {
	text string
	root condition
}

// ParseSQL reads a filter.
func ParseSQL(text string) (*SQL, error) {
	if len(text) > maxSQL {
		return nil, fmt.Errorf("the filter has %d characters, and %d are permitted", len(text), maxSQL)
	}
	tokens, err := scan(text)
	if err != nil {
		return nil, err
	}
	p := &sqlParser{tokens: tokens}
	root, err := p.either()
	if err != nil {
		return nil, err
	}
	if !p.done() {
		return nil, fmt.Errorf("%q is not expected here", p.peek().text)
	}
	return &SQL{text: text, root: root}, nil
}

// String is the filter as it was given.
func (s *SQL) String() string { return s.text }

func (s *SQL) match(m *amqp.Message) bool { return s.root(m) == isTrue }

// truth is a value of SQL's logic of three values.
type truth int

const (
	isFalse truth = iota
	unknown
	isTrue
)

func truthOf(b bool) truth {
	if b {
		return isTrue
	}
	return isFalse
}

func (t truth) not() truth { return isTrue - t }

// condition judges a message; operand gives a value of it, nil for null.
type (
	condition func(*amqp.Message) truth
	operand   func(*amqp.Message) any
)

type sqlKind int

const (
	sqlName sqlKind = iota
	sqlText
	sqlNumber
	sqlSign
)

type sqlToken struct {
	kind sqlKind
	text string
	// isQuoted: a name in brackets or quotation marks, which is no keyword.
	isQuoted bool
}

func (t sqlToken) is(keyword string) bool {
	isWord := t.kind == sqlName && !t.isQuoted || t.kind == sqlSign
	return isWord && strings.EqualFold(t.text, keyword)
}

var errSQLEnd = errors.New("the filter ends too early")

// scan takes a filter into its words.
func scan(text string) ([]sqlToken, error) {
	var out []sqlToken
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		var t sqlToken
		var err error
		t, rest, err = scanOne(rest)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, errSQLEnd
	}
	return out, nil
}

func scanOne(rest string) (sqlToken, string, error) {
	c := rest[0]
	switch {
	case c == '\'' || c == '"' || c == '[':
		end := c
		if c == '[' {
			end = ']'
		}
		value, after, ok := scanQuoted(rest[1:], end)
		if !ok {
			return sqlToken{}, "", fmt.Errorf("%c is not closed", c)
		}
		if c == '\'' {
			return sqlToken{kind: sqlText, text: value}, after, nil
		}
		return sqlToken{kind: sqlName, text: value, isQuoted: true}, after, nil
	case isDigit(c) || c == '-' && len(rest) > 1 && isDigit(rest[1]):
		n := 1
		for n < len(rest) && (isDigit(rest[n]) || rest[n] == '.') {
			n++
		}
		return sqlToken{kind: sqlNumber, text: rest[:n]}, rest[n:], nil
	case isLetter(c):
		n := 1
		for n < len(rest) && (isLetter(rest[n]) || isDigit(rest[n])) {
			n++
		}
		return sqlToken{kind: sqlName, text: rest[:n]}, rest[n:], nil
	}
	for _, sign := range []string{"<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ",", "."} {
		if after, ok := strings.CutPrefix(rest, sign); ok {
			return sqlToken{kind: sqlSign, text: sign}, after, nil
		}
	}
	return sqlToken{}, "", fmt.Errorf("%q is not part of the dialect, or not supported here", c)
}

// scanQuoted reads up to the end sign; a doubled one stands for itself.
func scanQuoted(rest string, end byte) (value, after string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		if rest[i] != end {
			b.WriteByte(rest[i])
			continue
		}
		if i+1 < len(rest) && rest[i+1] == end {
			b.WriteByte(end)
			i++
			continue
		}
		return b.String(), rest[i+1:], true
	}
	return "", "", false
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c == '$'
}

type sqlParser struct {
	tokens []sqlToken
	at     int
}

func (p *sqlParser) done() bool { return p.at >= len(p.tokens) }

func (p *sqlParser) peek() sqlToken {
	if p.done() {
		return sqlToken{kind: sqlSign}
	}
	return p.tokens[p.at]
}

// take goes on if the next word is this one.
func (p *sqlParser) take(keyword string) bool {
	if p.done() || !p.peek().is(keyword) {
		return false
	}
	p.at++
	return true
}

func (p *sqlParser) expect(keyword string) error {
	switch {
	case p.take(keyword):
		return nil
	case p.done():
		return errSQLEnd
	}
	return fmt.Errorf("%q is not expected here, but %q", p.peek().text, keyword)
}

func (p *sqlParser) either() (condition, error) {
	left, err := p.both()
	for err == nil && p.take("OR") {
		var right condition
		one := left
		right, err = p.both()
		left = func(m *amqp.Message) truth { return max(one(m), right(m)) }
	}
	return left, err
}

func (p *sqlParser) both() (condition, error) {
	left, err := p.negated()
	for err == nil && p.take("AND") {
		var right condition
		one := left
		right, err = p.negated()
		left = func(m *amqp.Message) truth { return min(one(m), right(m)) }
	}
	return left, err
}

func (p *sqlParser) negated() (condition, error) {
	if !p.take("NOT") {
		return p.predicate()
	}
	inner, err := p.negated()
	return func(m *amqp.Message) truth { return inner(m).not() }, err
}

func (p *sqlParser) predicate() (condition, error) {
	if p.take("(") {
		inner, err := p.either()
		if err != nil {
			return nil, err
		}
		return inner, p.expect(")")
	}
	if p.take("EXISTS") {
		return p.exists()
	}
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	switch {
	case p.take("IS"):
		return p.isNull(left)
	case p.take("NOT"):
		return p.listed(left, true)
	case p.peek().is("IN") || p.peek().is("LIKE"):
		return p.listed(left, false)
	case p.done() || p.peek().kind != sqlSign || p.peek().is(")"):
		// a property that is a boolean stands for itself
		return func(m *amqp.Message) truth {
			b, ok := left(m).(bool)
			if !ok {
				return unknown
			}
			return truthOf(b)
		}, nil
	}
	sign := p.peek().text
	holds, ok := comparisons[sign]
	if !ok {
		return nil, fmt.Errorf("%q is not a comparison", sign)
	}
	p.at++
	right, err := p.operand()
	return func(m *amqp.Message) truth {
		order, ok := compare(left(m), right(m), sign)
		if !ok {
			return unknown
		}
		return truthOf(holds(order))
	}, err
}

var comparisons = map[string]func(int) bool{
	"=":  func(o int) bool { return o == 0 },
	"<>": func(o int) bool { return o != 0 },
	"!=": func(o int) bool { return o != 0 },
	"<":  func(o int) bool { return o < 0 },
	"<=": func(o int) bool { return o <= 0 },
	">":  func(o int) bool { return o > 0 },
	">=": func(o int) bool { return o >= 0 },
}

// compare orders two values of one kind; false: they are of two, or one is null.
func compare(left, right any, sign string) (int, bool) {
	switch l := left.(type) {
	case string:
		r, ok := right.(string)
		return strings.Compare(l, r), ok
	case float64:
		r, ok := right.(float64)
		return cmp.Compare(l, r), ok
	case bool:
		r, ok := right.(bool)
		if l == r {
			return 0, ok
		}
		return 1, ok && (sign == "=" || sign == "<>" || sign == "!=") // booleans have no order
	}
	return 0, false
}

func (p *sqlParser) exists() (condition, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	value, err := p.property()
	if err != nil {
		return nil, err
	}
	return func(m *amqp.Message) truth { return truthOf(value(m) != nil) }, p.expect(")")
}

func (p *sqlParser) isNull(value operand) (condition, error) {
	isNegated := p.take("NOT")
	return func(m *amqp.Message) truth { return truthOf((value(m) == nil) != isNegated) }, p.expect("NULL")
}

// listed reads IN and LIKE, with NOT in front of them.
func (p *sqlParser) listed(value operand, isNegated bool) (condition, error) {
	var holds condition
	var err error
	switch {
	case p.take("IN"):
		holds, err = p.in(value)
	case p.take("LIKE"):
		holds, err = p.like(value)
	default:
		return nil, errors.New("after NOT comes IN or LIKE")
	}
	if !isNegated {
		return holds, err
	}
	return func(m *amqp.Message) truth { return holds(m).not() }, err
}

func (p *sqlParser) in(value operand) (condition, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var list []operand
	for {
		one, err := p.operand()
		if err != nil {
			return nil, err
		}
		list = append(list, one)
		if !p.take(",") {
			break
		}
	}
	return func(m *amqp.Message) truth {
		out := isFalse
		for _, one := range list {
			order, ok := compare(value(m), one(m), "=")
			found := truthOf(order == 0)
			if !ok {
				found = unknown
			}
			out = max(out, found)
		}
		return out
	}, p.expect(")")
}

func (p *sqlParser) like(value operand) (condition, error) {
	pattern, err := p.text()
	if err != nil {
		return nil, err
	}
	escape := ""
	if p.take("ESCAPE") {
		escape, err = p.text()
		if err == nil && len(escape) != 1 {
			err = errors.New("ESCAPE takes one character")
		}
		if err != nil {
			return nil, err
		}
	}
	return func(m *amqp.Message) truth {
		s, ok := value(m).(string)
		if !ok {
			return unknown
		}
		return truthOf(like(s, pattern, escape))
	}, nil
}

func (p *sqlParser) text() (string, error) {
	t := p.peek()
	if p.done() || t.kind != sqlText {
		return "", errors.New("LIKE and ESCAPE take a text in quotation marks")
	}
	p.at++
	return t.text, nil
}

// like compares with %, any characters, and _, one.
func like(s, pattern, escape string) bool {
	if pattern == "" {
		return s == ""
	}
	switch c := pattern[0]; {
	case escape != "" && c == escape[0] && len(pattern) > 1:
		return s != "" && s[0] == pattern[1] && like(s[1:], pattern[2:], escape)
	case c == '%':
		for i := range len(s) + 1 {
			if like(s[i:], pattern[1:], escape) {
				return true
			}
		}
		return false
	case c == '_':
		return s != "" && like(s[1:], pattern[1:], escape)
	default:
		return s != "" && s[0] == c && like(s[1:], pattern[1:], escape)
	}
}

func (p *sqlParser) operand() (operand, error) {
	if p.done() {
		return nil, errSQLEnd
	}
	t := p.peek()
	constant := func(v any) (operand, error) {
		p.at++
		return func(*amqp.Message) any { return v }, nil
	}
	switch {
	case t.kind == sqlText:
		return constant(t.text)
	case t.kind == sqlNumber:
		n, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", t.text)
		}
		return constant(n)
	case t.is("TRUE") || t.is("FALSE"):
		return constant(t.is("TRUE"))
	case t.is("NULL"):
		return constant(nil)
	}
	return p.property()
}

// property reads name, user.name or sys.Name.
func (p *sqlParser) property() (operand, error) {
	t := p.peek()
	if p.done() || t.kind != sqlName {
		return nil, fmt.Errorf("%q is not the name of a property", t.text)
	}
	p.at++
	if !p.take(".") {
		return userProperty(t.text), nil
	}
	name := p.peek()
	if p.done() || name.kind != sqlName {
		return nil, fmt.Errorf("after %s and a point comes a name", t.text)
	}
	p.at++
	switch strings.ToLower(t.text) {
	case "user":
		return userProperty(name.text), nil
	case "sys":
		get, ok := systemProperties[strings.ToLower(name.text)]
		if !ok {
			return nil, fmt.Errorf("sys.%s is not known, or not supported here", name.text)
		}
		return func(m *amqp.Message) any { return orNull(get(m.Properties)) }, nil
	}
	return nil, fmt.Errorf("%q is not a scope: user or sys", t.text)
}

// userProperty finds a property whatever the case of its name.
func userProperty(name string) operand {
	return func(m *amqp.Message) any {
		for _, pair := range m.ApplicationProperties {
			key, ok := pair.Key.(string)
			if ok && strings.EqualFold(key, name) {
				return number(pair.Value)
			}
		}
		return nil
	}
}

var systemProperties = map[string]func(amqp.Properties) string{
	"label":            func(p amqp.Properties) string { return p.Subject },
	"messageid":        func(p amqp.Properties) string { return idText(p.MessageID) },
	"correlationid":    func(p amqp.Properties) string { return idText(p.CorrelationID) },
	"to":               func(p amqp.Properties) string { return p.To },
	"replyto":          func(p amqp.Properties) string { return p.ReplyTo },
	"replytosessionid": func(p amqp.Properties) string { return p.ReplyToGroupID },
	"contenttype":      func(p amqp.Properties) string { return p.ContentType },
	"sessionid": func(p amqp.Properties) string {
		if p.GroupID == nil {
			return ""
		}
		return *p.GroupID
	},
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
