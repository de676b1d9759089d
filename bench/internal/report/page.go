package report

import (
	"fmt"
	"strings"
)

// Replace puts text between the marks of that name in a page, and leaves everything outside of them as it is. The
// marks are comments on lines of their own:
//
//	<!-- bench:begin NAME -->
//	<!-- bench:end NAME -->
func Replace(page, name, text string) (string, error) {
	begin, end := fmt.Sprintf("<!-- bench:begin %s -->\n", name), fmt.Sprintf("<!-- bench:end %s -->\n", name)
	before, rest, ok := strings.Cut(page, begin)
	if !ok || strings.Contains(rest, begin) {
		return "", fmt.Errorf("the page needs the line %q exactly once", strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok || strings.Contains(after, end) {
		return "", fmt.Errorf("the page needs the line %q exactly once, after the one that begins it", strings.TrimSpace(end))
	}
	return before + begin + "\n" + strings.TrimSpace(text) + "\n\n" + end + after, nil
}

// Table returns a Markdown table. Cells hold no line breaks; a bar in one is escaped.
func Table(head []string, rows [][]string) string {
	var b strings.Builder
	write := func(cells []string) {
		b.WriteString("|")
		for _, c := range cells {
			b.WriteString(" " + strings.ReplaceAll(c, "|", `\|`) + " |")
		}
		b.WriteString("\n")
	}
	write(head)
	b.WriteString("|" + strings.Repeat("---|", len(head)) + "\n")
	for _, r := range rows {
		write(r)
	}
	return b.String()
}
