package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/internal/sim"
)

func few(t *testing.T) (all []sim.Growth) {
	for _, network := range sim.GrowthNetworks() {
		for _, n := range []int{2, 3} {
			g := sim.Grow(network, n, nil)
			if !good(t.Output(), &g) {
				t.Fatalf("%s with %d instances failed", network, n)
			}
			all = append(all, g)
		}
	}
	return all
}

func TestPublishGrowth_WritesBetweenTheMarkersOnly(t *testing.T) {
	folder := t.TempDir()
	page := filepath.Join(folder, "scaling.md")
	if err := os.Mkdir(filepath.Join(folder, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	all := few(t)
	if err := os.WriteFile(page, []byte("before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := publishGrowth(folder, all, 0); err == nil || !strings.Contains(err.Error(), "simulated") {
		t.Errorf("a page without markers: error %v, want one that names them", err)
	}
	if err := os.WriteFile(page, []byte("before\n"+simulatedBegins+"of last time\n"+simulatedEnds+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := publishGrowth(folder, all, 0); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	if !strings.HasPrefix(got, "before\n"+simulatedBegins) || !strings.HasSuffix(got, simulatedEnds+"after\n") || strings.Contains(got, "of last time") {
		t.Errorf("the page is now\n%s", got)
	}
	// Three tables with two sizes, the losses and the member table with two more each.
	if rows := strings.Count(got, "\n| 2 |") + strings.Count(got, "\n| 3 |"); rows != 10 {
		t.Errorf("%d rows, want 10:\n%s", rows, got)
	}
}

func TestGrowthGraph_IsWellFormedAndDrawsEveryPoint(t *testing.T) {
	all := few(t)
	image := growthGraph(all)
	want := 0
	for _, p := range growthPanels() {
		for _, c := range p.curves {
			points := c.points(all)
			if len(points) != 2 {
				t.Errorf("%s: %d points of %s, want 2", p.title, len(points), c.network)
			}
			want += len(points)
		}
	}
	circles := 0
	for d := xml.NewDecoder(strings.NewReader(image)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if circles != want || strings.Contains(image, "NaN") || strings.Contains(image, "Inf") {
		t.Errorf("%d points drawn, want %d, and numbers only", circles, want)
	}
}
