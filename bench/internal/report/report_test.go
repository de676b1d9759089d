package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/report"
)

func TestReplace_LeavesTheRestAlone(t *testing.T) {
	const page = "# Title\n\n<!-- bench:begin figures -->\nold\n<!-- bench:end figures -->\n\nHand-written.\n"
	got, err := report.Replace(page, "figures", "new\n")
	want := "# Title\n\n<!-- bench:begin figures -->\n\nnew\n\n<!-- bench:end figures -->\n\nHand-written.\n"
	if err != nil || got != want {
		t.Fatalf("%q, %v; want %q", got, err, want)
	}
	if again, err := report.Replace(got, "figures", "new"); err != nil || again != want {
		t.Errorf("the second time %q, %v", again, err)
	}
}

func TestReplace_RefusesAPageWithoutMarks(t *testing.T) {
	const begin, end = "<!-- bench:begin x -->\n", "<!-- bench:end x -->\n"
	for name, page := range map[string]string{
		"none": "text\n", "no end": begin, "no begin": end, "the wrong way round": end + begin,
		"twice begun": begin + begin + end, "twice ended": begin + end + end, "another name": "<!-- bench:begin y -->\n<!-- bench:end y -->\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := report.Replace(page, "x", "new"); err == nil {
				t.Errorf("replaced: %q", got)
			}
		})
	}
}

func TestTable_EscapesBars(t *testing.T) {
	got := report.Table([]string{"a", "b"}, [][]string{{"1|2", "3"}})
	if want := "| a | b |\n|---|---|\n| 1\\|2 | 3 |\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// wellFormed reads an image as XML and returns its texts.
func wellFormed(t *testing.T, image []byte) string {
	t.Helper()
	var texts strings.Builder
	d := xml.NewDecoder(bytes.NewReader(image))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts.String()
		}
		if err != nil {
			t.Fatalf("not well formed: %v\n%s", err, image)
		}
		if c, ok := token.(xml.CharData); ok {
			texts.Write(c)
			texts.WriteByte(' ')
		}
	}
}

func TestPlots_AreImagesWithAllNames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		draw  func(io.Writer) error
		texts []string
	}{
		{"bars", func(w io.Writer) error {
			return report.Bars(w, "A < B", "µs", []report.Panel{{Title: "panel & more", Bars: []report.Bar{
				{Name: "one", Value: 2400000, Min: 1e6, Max: 3e6}, {Name: "two", Kind: report.Limit, Note: "gone"},
			}}})
		}, []string{"A < B", "panel & more", "one", "2.4M", "two", "gone"}},
		{"bars of nothing", func(w io.Writer) error { return report.Bars(w, "empty", "µs", nil) }, []string{"empty"}},
		{"dots", func(w io.Writer) error {
			return report.Dots(w, "dots", "µs", []string{"p50", "p99"}, []report.Row{{"one", []float64{60, 900}}, {"none", nil}})
		}, []string{"dots", "p50", "p99", "one", "none"}},
		{"lines", func(w io.Writer) error {
			return report.Lines(w, "lines", "x", "y", []report.Series{{"one", []float64{2, 32}, []float64{50, 700}}, {Name: "none"}})
		}, []string{"lines", "one", "none"}},
		{"lines of nothing", func(w io.Writer) error { return report.Lines(w, "empty", "x", "y", nil) }, []string{"empty"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := tt.draw(&b); err != nil {
				t.Fatal(err)
			}
			texts := wellFormed(t, b.Bytes())
			for _, want := range tt.texts {
				if !strings.Contains(texts, want) {
					t.Errorf("no %q in %q", want, texts)
				}
			}
			if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
				t.Errorf("something lies nowhere: %s", b.String())
			}
		})
	}
}
