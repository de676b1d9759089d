//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/carillon-go/carillon/bench/internal/report"
)

type runCommand struct {
	Rounds int           `default:"5" help:"How often everything is measured, in turns."`
	For    time.Duration `default:"2s" help:"How long each run lasts, at full speed and at a fixed rate."`
	Docs   string        `default:"../docs" type:"path" placeholder:"DIR" help:"Folder with performance.md, in which images are written too."`
}

// Run implements the command.
func (c *runCommand) Run(ctx context.Context) error {
	page := filepath.Join(c.Docs, "performance.md")
	was, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	// Before the hours of measuring: whether there is a place for what they find.
	if _, err := report.Replace(string(was), marks, ""); err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	if c.Rounds < 1 || c.For <= 0 {
		return errors.New("there is nothing to measure in less than one round, or in no time")
	}
	p := fullPlan(c.Rounds, c.For)
	began := time.Now()
	show := newProgress(p.steps())
	r, err := p.measure(ctx, show)
	show.end()
	if err != nil {
		return err
	}
	if err := drawAll(filepath.Join(c.Docs, "images"), p, r); err != nil {
		return err
	}
	if was, err = os.ReadFile(page); err != nil { // somebody may have written meanwhile
		return err
	}
	text, err := report.Replace(string(was), marks, pageOf(p, r, began))
	if err != nil {
		return err
	}
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		return err
	}
	for _, g := range goals {
		fmt.Println(g.judge(r))
	}
	return nil
}

// drawAll writes the plots.
func drawAll(folder string, p plan, r *results) error {
	for name, draw := range map[string]func(io.Writer, plan, *results) error{
		"bench-throughput.svg": drawThroughput,
		"bench-latency.svg":    drawLatency,
		"bench-cpu.svg":        drawCPU,
		"bench-growth.svg":     drawGrowth,
	} {
		f, err := os.Create(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		if err := errors.Join(draw(f, p, r), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
