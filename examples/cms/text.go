package cms

import (
	"regexp"
	"strings"
)

// A block is one paragraph, heading or list of a page's body. Templates escape
// whatever is in it; there is no way to put HTML into a page.
type block struct {
	Kind  string // "p", "h2" or "ul"
	Spans []span // of p and h2
	Items [][]span
}

// A span is a run of text inside a block.
type span struct {
	Text string
	Code bool
	Href string // a path on this site, or empty
}

// inline matches `code` and [text](/path). Links lead to this site only: the
// path begins with one slash and holds no second one that could name a host.
var inline = regexp.MustCompile("`([^`\n]+)`" + `|\[([^\]\n]+)\]\((/[a-z0-9][a-z0-9/-]*|/)\)`)

// blocks reads a body: paragraphs are separated by empty lines, "## " begins a
// heading, "- " a list item; inside, `code` and [links](/link/1).
func blocks(body string) []block {
	var out []block
	for _, para := range strings.Split(strings.ReplaceAll(body, "\r\n", "\n"), "\n\n") {
		para = strings.Trim(para, "\n")
		if strings.TrimSpace(para) == "" {
			continue
		}
		if h, ok := strings.CutPrefix(para, "## "); ok {
			head, rest, _ := strings.Cut(h, "\n")
			out = append(out, block{Kind: "h2", Spans: spans(head)})
			if para = rest; strings.TrimSpace(para) == "" {
				continue
			}
		}
		if strings.HasPrefix(para, "- ") {
			var items [][]span
			for _, item := range strings.Split(strings.TrimPrefix(para, "- "), "\n- ") {
				items = append(items, spans(item))
			}
			out = append(out, block{Kind: "ul", Items: items})
			continue
		}
		out = append(out, block{Kind: "p", Spans: spans(para)})
	}
	return out
}

func spans(text string) []span {
	var out []span
	for text != "" {
		at := inline.FindStringSubmatchIndex(text)
		if at == nil {
			break
		}
		if at[0] > 0 {
			out = append(out, span{Text: text[:at[0]]})
		}
		if at[2] >= 0 {
			out = append(out, span{Text: text[at[2]:at[3]], Code: true})
		} else {
			out = append(out, span{Text: text[at[4]:at[5]], Href: text[at[6]:at[7]]})
		}
		text = text[at[1]:]
	}
	if text != "" {
		out = append(out, span{Text: text})
	}
	return out
}

// lead returns the beginning of a body as plain text, for lists.
func lead(body string) string {
	const limit = 150 // bytes, give or take a word
	for _, b := range blocks(body) {
		if b.Kind != "p" {
			continue
		}
		var s strings.Builder
		for _, sp := range b.Spans {
			s.WriteString(sp.Text)
		}
		text := strings.Join(strings.Fields(s.String()), " ")
		if len(text) <= limit {
			return text
		}
		cut := strings.LastIndexByte(text[:limit], ' ')
		if cut < 0 {
			cut = len(string([]rune(text)[:limit/4]))
		}
		return strings.TrimRight(text[:cut], " ,;:.") + " …"
	}
	return ""
}
