//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// sayEvery is how often a line tells how far it is, where there is no terminal to draw a bar on.
const sayEvery = 20 * time.Second

// A progress tells on standard error how far a measurement is. It is used by one goroutine.
type progress struct {
	out   io.Writer
	bar   *progressbar.ProgressBar // nil: no terminal
	steps int
	done  int
	began time.Time
	said  time.Time
}

func newProgress(steps int) *progress {
	p := &progress{out: os.Stderr, steps: steps, began: time.Now()}
	p.said = p.began
	if term.IsTerminal(int(os.Stderr.Fd())) {
		p.bar = progressbar.NewOptions(steps,
			progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetWidth(24), progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	}
	return p
}

// step begins the next step.
func (p *progress) step(what string) {
	if p.bar != nil {
		p.bar.Describe(what)
		p.bar.Set(p.done)
	} else if time.Since(p.said) >= sayEvery {
		p.said = time.Now()
		fmt.Fprintf(p.out, "bench: %d of %d after %.0f s: %s\n", p.done, p.steps, time.Since(p.began).Seconds(), what)
	}
	p.done++
}

// note writes what went wrong, and goes on.
func (p *progress) note(err error) {
	if p.bar != nil {
		p.bar.Clear()
	}
	fmt.Fprintln(p.out, "bench:", err)
}

// end removes the bar.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
