// Package worker is the process under test: an application that does what applications
// do with the library, as fast as it is told to, and writes down what it hears.
package worker

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	_ "modernc.org/sqlite"             // the driver sqlite

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/provider/udpbus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// Application is what workers call their application and their site.
const Application = "chaos"

const (
	openTimeout  = 15 * time.Second // of one attempt to join
	openPause    = 300 * time.Millisecond
	stopTimeout  = 8 * time.Second
	raiseEvery   = 5 * time.Millisecond // what is due is raised at once
	mostAtOnce   = 1000                 // after a pause, such as a SIGSTOP, not everything is made up for
	maxLineBytes = 1 << 16
)

// Run is the worker: it obeys commands from in and reports to out until it is told to stop, or
// in ends, which means that its harness is gone. It returns the exit code.
func Run(in io.Reader, out io.Writer) int {
	mysql.SetLogger(&mysql.NopLogger{}) // it would write of every connection that a fault breaks
	reports := &reporter{enc: json.NewEncoder(out)}
	if err := run(in, reports); err != nil {
		reports.report(Report{Fail: err.Error()})
		return 1
	}
	return 0
}

// A reporter writes reports. It is safe for concurrent use.
type reporter struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (r *reporter) report(what Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.enc.Encode(what) // a harness that is gone closes the input as well
}

func run(in io.Reader, reports *reporter) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLineBytes)
	var cfg Config
	if !lines.Scan() {
		return errors.New("worker: no configuration on standard input")
	}
	if err := json.Unmarshal(lines.Bytes(), &cfg); err != nil {
		return fmt.Errorf("worker: read the configuration: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	commands := make(chan Command)
	go func() {
		defer cancel()
		defer close(commands)
		for lines.Scan() {
			var c Command
			if json.Unmarshal(lines.Bytes(), &c) == nil {
				commands <- c
			}
		}
	}()
	w, err := join(ctx, cfg, reports)
	if err != nil {
		return err
	}
	return w.work(commands, reports)
}

// A worker is one instance.
type worker struct {
	cfg       Config
	event     *carillon.Definition[note]
	diary     *diary
	broker    *carillon.Broker
	raised    atomic.Uint64
	stream    site.StreamID // as last seen
	closeBase func()
}

// join opens a Broker, trying again while the site database or the network does not let it in, as
// whoever starts services would.
func join(ctx context.Context, cfg Config, reports *reporter) (*worker, error) {
	pool, err := sql.Open(cfg.Driver, cfg.DSN)
	if err != nil {
		return nil, err
	}
	db, err := sqlsite.New(pool)
	if err != nil {
		return nil, err
	}
	logFile, err := os.Create(filepath.Join(cfg.Folder, fmt.Sprintf("run%03d.log", cfg.Run)))
	if err != nil {
		return nil, err
	}
	codec := newNoteCodec(cfg.Options.Bytes)
	w := &worker{cfg: cfg, event: define(codec, cfg.Options.Ordered), closeBase: func() { db.Close(); pool.Close(); logFile.Close() }}
	if w.diary, err = newDiary(cfg, codec); err != nil {
		return nil, err
	}
	w.diary.write(history.Record{Kind: history.Opening, Site: Application, Accepts: []string{"*"}})
	for {
		providers, err := cfg.providers()
		if err != nil {
			return nil, err
		}
		attempt, cancel := context.WithTimeout(ctx, openTimeout)
		w.broker, err = carillon.Open(attempt, carillon.Config{
			Application: Application, Server: cfg.Server, Database: db, Providers: providers,
			Lease: cfg.Options.Lease, MissedAfter: cfg.Options.MissedAfter,
			Logger: slog.New(slog.NewTextHandler(logFile, nil)),
		})
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil, err
		}
		reports.report(Report{Waiting: err.Error()})
		select {
		case <-time.After(openPause):
		case <-ctx.Done():
			return nil, err
		}
	}
	w.stream = stream(w.broker)
	w.diary.write(history.Record{Kind: history.Opened, Stream: history.Stream(w.stream)})
	w.broker.OnInDoubt(w.diary.inDoubt)
	w.event.OnMissed(w.broker, w.diary.missed)
	w.event.OnRaised(w.broker, w.diary.heard)
	w.diary.write(history.Record{Kind: history.Subscribed, Event: eventName})
	w.diary.write(history.Record{Kind: history.Enabled})
	w.broker.Enable()
	reports.report(Report{Ready: true})
	return w, nil
}

// providers makes those that carry the events.
func (c Config) providers() ([]provider.Provider, error) {
	var all []provider.Provider
	for name := range strings.SplitSeq(c.Options.Provider, ",") {
		var p provider.Provider
		var err error
		switch name {
		case "udp":
			p, err = udpbus.New(udpbus.Config{Interface: c.Interface})
		case "tcp":
			p, err = tcpbus.New(tcpbus.Config{Listen: c.Addr + ":0"})
		default:
			err = fmt.Errorf("worker: there is no provider %q; choose udp, tcp, or udp,tcp", name)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// work raises events and obeys until told to stop.
func (w *worker) work(commands <-chan Command, reports *reporter) error {
	rates := make(chan float64, 1)
	rates <- w.cfg.Options.Rate
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var raising sync.WaitGroup
	raising.Go(func() { w.raise(ctx, rates) })
	sample := time.NewTicker(SampleEvery)
	defer sample.Stop()
	for {
		select {
		case <-sample.C:
			s := w.sample()
			reports.report(Report{Sample: &s})
		case c, ok := <-commands:
			switch {
			case !ok:
				return errors.New("worker: the harness is gone")
			case c.Rate != nil:
				select { // one that was not taken yet is outdated
				case <-rates:
				default:
				}
				rates <- *c.Rate
			case c.Stop:
				cancel()
				raising.Wait()
				if err := w.stop(); err != nil {
					return err
				}
				reports.report(Report{Stopped: true})
				return nil
			}
		}
	}
}

// raise raises events at the rate that was last said.
func (w *worker) raise(ctx context.Context, rates <-chan float64) {
	tick := time.NewTicker(raiseEvery)
	defer tick.Stop()
	rate, due, last := 0.0, 0.0, time.Now()
	for {
		select {
		case rate = <-rates:
			due, last = 0, time.Now()
		case <-ctx.Done():
			return
		case now := <-tick.C:
			due = min(due+rate*now.Sub(last).Seconds(), mostAtOnce)
			last = now
		}
		for ; due >= 1 && ctx.Err() == nil; due-- {
			w.raiseOne(ctx)
		}
	}
}

func (w *worker) raiseOne(ctx context.Context) {
	n := note{Run: w.cfg.Run, Seq: w.raised.Load()}
	w.diary.raising(n)
	kind := history.Accepted
	if err := w.event.Raise(ctx, w.broker, carillon.ID{}, n); err != nil {
		kind = history.Refused
	} else {
		w.raised.Add(1)
	}
	w.diary.write(history.Record{Kind: kind, Seq: n.Seq})
}

// stop shuts down in good order. That the library says what it could not do in time, such as closing its
// row in a busy database, is no failure; the history has it.
func (w *worker) stop() error {
	w.diary.write(history.Record{Kind: history.Shutdown})
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := w.broker.Shutdown(ctx)
	w.diary.write(history.Record{Kind: history.Closed, Clean: err == nil})
	w.closeBase()
	return errors.Join(w.diary.err(), w.diary.out.Close())
}
