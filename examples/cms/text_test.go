package cms

import (
	"fmt"
	"strings"
	"testing"
)

// flat writes blocks in one line, for comparison.
func flat(bs []block) string {
	line := func(spans []span) string {
		var out []string
		for _, s := range spans {
			switch {
			case s.Code:
				out = append(out, "`"+s.Text+"`")
			case s.Href != "":
				out = append(out, "<"+s.Href+" "+s.Text+">")
			default:
				out = append(out, s.Text)
			}
		}
		return strings.Join(out, "|")
	}
	var out []string
	for _, b := range bs {
		if b.Kind == "ul" {
			var items []string
			for _, i := range b.Items {
				items = append(items, line(i))
			}
			out = append(out, "ul("+strings.Join(items, "; ")+")")
			continue
		}
		out = append(out, b.Kind+"("+line(b.Spans)+")")
	}
	return strings.Join(out, " ")
}

func TestBlocks(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"empty", "", ""},
		{"only space", " \n\n  \n", ""},
		{"paragraphs", "one\ntwo\n\n\n\nthree", "p(one\ntwo) p(three)"},
		{"carriage returns", "one\r\n\r\ntwo", "p(one) p(two)"},
		{"heading alone", "## Head\n\ntext", "h2(Head) p(text)"},
		{"heading with text", "## Head\ntext", "h2(Head) p(text)"},
		{"list", "- one\n- two\nmore", "ul(one; two\nmore)"},
		{"heading with list", "## Head\n- one", "h2(Head) ul(one)"},
		{"code and link", "a `b` [c](/link/4) d", "p(a |`b`| |</link/4 c>| d)"},
		{"link to the front", "[all](/)", "p(</ all>)"},
		{"no link to elsewhere", "[x](//evil.example) [y](https://evil.example) [z](javascript:alert)", "p([x](//evil.example) [y](https://evil.example) [z](javascript:alert))"},
		{"unclosed", "`a [b](c", "p(`a [b](c)"},
		{"markup stays text", "<b>&amp;</b>", "p(<b>&amp;</b>)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := flat(blocks(tt.body)); got != tt.want {
				t.Errorf("blocks(%q) = %s, want %s", tt.body, got, tt.want)
			}
		})
	}
}

func TestLead_IsShortPlainText(t *testing.T) {
	if got := lead("## Head\n\n- item\n\nA `word` and [a link](/link/1)."); got != "A word and a link." {
		t.Errorf("lead = %q", got)
	}
	for _, word := range []string{"word ", "wordwithoutspace", "日本語"} {
		got := lead(strings.Repeat(word, 200))
		if len(got) > 160 || !strings.HasSuffix(got, " …") {
			t.Errorf("lead of many %q = %q", word, got)
		}
	}
}

func FuzzBlocks(f *testing.F) {
	for _, p := range seed() {
		f.Add(p.Body)
	}
	f.Add("## \n- `[](/)`")
	f.Fuzz(func(t *testing.T, body string) {
		var hrefs []string
		for _, b := range blocks(body) {
			for _, spans := range append(b.Items, b.Spans) {
				for _, s := range spans {
					if s.Href != "" {
						hrefs = append(hrefs, s.Href)
					}
				}
			}
		}
		for _, h := range hrefs {
			if !strings.HasPrefix(h, "/") || strings.HasPrefix(h, "//") {
				t.Errorf("a link leads to %q", h)
			}
		}
		lead(body)
	})
}

func TestSeed_IsWhole(t *testing.T) {
	pages := seed()
	if len(pages) < 12 {
		t.Errorf("%d pages, want a dozen", len(pages))
	}
	ids := map[string]bool{}
	for i, p := range pages {
		if p.ID != int64(i+1) || !possibleSlug(p.Slug) || checkText(p.Title, p.Body) != "" {
			t.Errorf("page %d: ID %d, slug %q, %s", i+1, p.ID, p.Slug, checkText(p.Title, p.Body))
		}
		ids[fmt.Sprintf("/link/%d", p.ID)] = true
	}
	for _, p := range pages {
		for _, b := range blocks(p.Body) {
			for _, spans := range append(b.Items, b.Spans) {
				for _, s := range spans {
					if s.Href != "" && !ids[s.Href] {
						t.Errorf("page %q links to %q, which is not there", p.Slug, s.Href)
					}
				}
			}
		}
	}
	if pages[NoticeBoard-1].Slug != "notice-board" {
		t.Errorf("page %d is %q, not the notice board", NoticeBoard, pages[NoticeBoard-1].Slug)
	}
}
