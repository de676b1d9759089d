package emulator

import (
	"errors"
	"fmt"
	"strings"
)

// A filter decides which messages a subscription gets. It is what a rule's SQL expression says, as far as it
// compares application properties with texts: =, <>, !=, IS [NOT] NULL, AND, OR, NOT and parentheses.
type filter func(properties map[string]any) truth

// A truth is of SQL's logic of three values: what is compared with a property that is missing is neither.
type truth int8

const (
	unknown truth = iota
	yes
	no
)

func (t truth) not() truth {
	switch t {
	case yes:
		return no
	case no:
		return yes
	}
	return unknown
}

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

func always(t truth) filter { return func(map[string]any) truth { return t } }

// maxExpression is what Service Bus allows, in characters.
const maxExpression = 1024

// parseFilter reads a SQL expression.
func parseFilter(expression string) (filter, error) {
	if len(expression) > maxExpression {
		return nil, fmt.Errorf("a filter of %d characters, at most %d are allowed", len(expression), maxExpression)
	}
	tokens, err := scan(expression)
	if err != nil {
		return nil, err
	}
	p := parser{tokens: tokens}
	f, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.peek() != "" {
		return nil, fmt.Errorf("%q is not expected there", p.peek())
	}
	return f, nil
}

// scan splits an expression: names are in lower case, texts begin with a quotation mark.
func scan(s string) (tokens []string, err error) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		n := 1
		switch c := s[0]; {
		case c == '\'' || c == '[':
			text, rest, err := quoted(s)
			if err != nil {
				return nil, err
			}
			if c == '[' {
				text = strings.ToLower(text)
			} else {
				text = "'" + text
			}
			tokens, s = append(tokens, text), rest
			continue
		case strings.HasPrefix(s, "<>"), strings.HasPrefix(s, "!="):
			tokens, s = append(tokens, "<>"), s[2:]
			continue
		case strings.IndexByte("()=.", c) >= 0:
		case isWord(c):
			for n < len(s) && isWord(s[n]) {
				n++
			}
		default:
			return nil, fmt.Errorf("%q has no place in a filter here", c)
		}
		tokens, s = append(tokens, strings.ToLower(s[:n])), s[n:]
	}
	return tokens, nil
}

// quoted returns what stands in quotation marks or brackets; doubled, the closing one stands for itself.
func quoted(s string) (text, rest string, err error) {
	end := byte('\'')
	if s[0] == '[' {
		end = ']'
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != end {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == end {
			b.WriteByte(end)
			i++
			continue
		}
		return b.String(), s[i+1:], nil
	}
	return "", "", errors.New("a text has no end")
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

type parser struct {
	tokens []string
	depth  int
}

func (p *parser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *parser) take() string {
	t := p.peek()
	if t != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

// taken takes the next token if it is t.
func (p *parser) taken(t string) bool {
	if p.peek() != t {
		return false
	}
	p.take()
	return true
}

func (p *parser) or() (filter, error) {
	left, err := p.and()
	for err == nil && p.taken("or") {
		var right filter
		a := left
		if right, err = p.and(); err == nil {
			left = func(m map[string]any) truth {
				switch x, y := a(m), right(m); {
				case x == yes || y == yes:
					return yes
				case x == no && y == no:
					return no
				}
				return unknown
			}
		}
	}
	return left, err
}

func (p *parser) and() (filter, error) {
	left, err := p.unary()
	for err == nil && p.taken("and") {
		var right filter
		a := left
		if right, err = p.unary(); err == nil {
			left = func(m map[string]any) truth {
				switch x, y := a(m), right(m); {
				case x == no || y == no:
					return no
				case x == yes && y == yes:
					return yes
				}
				return unknown
			}
		}
	}
	return left, err
}

func (p *parser) unary() (filter, error) {
	if p.depth++; p.depth > 100 {
		return nil, errors.New("too many parentheses")
	}
	defer func() { p.depth-- }()
	switch {
	case p.taken("not"):
		f, err := p.unary()
		if err != nil {
			return nil, err
		}
		return func(m map[string]any) truth { return f(m).not() }, nil
	case p.taken("("):
		f, err := p.or()
		if err == nil && !p.taken(")") {
			err = errors.New("a parenthesis is not closed")
		}
		return f, err
	}
	return p.comparison()
}

func (p *parser) comparison() (filter, error) {
	name := p.take()
	if name == "user" && p.taken(".") {
		name = p.take()
	}
	if name == "" || name[0] == '\'' {
		return nil, errors.New("the name of a property is expected")
	}
	value := func(m map[string]any) (any, bool) {
		for k, v := range m {
			if strings.EqualFold(k, name) {
				return v, v != nil
			}
		}
		return nil, false
	}
	switch op := p.take(); op {
	case "is":
		negated := p.taken("not")
		if !p.taken("null") {
			return nil, errors.New("NULL is expected")
		}
		return func(m map[string]any) truth { _, ok := value(m); return truthOf(ok == negated) }, nil
	case "=", "<>":
		text := p.take()
		if text == "" || text[0] != '\'' {
			return nil, fmt.Errorf("a text is expected behind %s", op)
		}
		return func(m map[string]any) truth {
			v, ok := value(m)
			if !ok {
				return unknown
			}
			return truthOf((v == text[1:]) == (op == "="))
		}, nil
	default:
		return nil, fmt.Errorf("%q compares nothing", op)
	}
}
