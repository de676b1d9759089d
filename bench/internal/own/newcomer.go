//go:build linux

package own

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/machine"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/site"
)

// newcomerArgument is the first argument of a process that is to call newcomer; then come the folder of the site database
// and the event to raise.
const newcomerArgument = "newcomer"

// betweenStarts keeps below what running instances do for strangers at their own cost: they hold up those that come faster than a
// few a second.
const betweenStarts = 250 * time.Millisecond

// A Part is a piece of the time that a process takes to start.
type Part struct {
	Name string
	Took time.Duration
}

// The parts, in their order.
var partNames = []string{
	"process to main", "open the database", "Open: site and keys", "Open: start the transport", "Open: join and snapshot",
	"Open: connect and come into step", "Enable and raise", "deliver everywhere",
}

// newcomerParts is how many of them the newcomer itself sees, the first one aside.
const newcomerParts = 6

// MeasureStart starts a process again and again while others run, and returns for each time how long each part took from
// the exec of the process until its first event had been delivered at all others.
func MeasureStart(ctx context.Context, program string, peers, times int) ([][]Part, error) {
	s, err := harness.Start(ctx, Find("tcpbus"), peers, harness.SmallestSize, harness.Options{Program: program})
	if err != nil {
		return nil, err
	}
	defer s.Abandon()
	if err := s.EndPublisher(ctx); err != nil {
		return nil, err
	}
	var all [][]Part
	for range times {
		if _, err := s.Rest(ctx, betweenStarts); err != nil {
			return nil, err
		}
		parts, err := startOnce(ctx, program, s)
		if err != nil {
			return nil, fmt.Errorf("start of a process: %w", err)
		}
		all = append(all, parts)
	}
	return all, nil
}

func startOnce(ctx context.Context, program string, s *harness.Session) ([]Part, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	event, err := s.Expect(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, newcomerArgument, s.Dir(), base64.StdEncoding.EncodeToString(event))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	hold, err := cmd.StdinPipe() // the newcomer stays until it is closed
	if err != nil {
		return nil, err
	}
	began := machine.NewClock().Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	received, err := s.Received(ctx)
	hold.Close()
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%w %s", err, said.String())
	}
	var at []int64 // when main began, and when each part ended
	if err := json.Unmarshal(out.Bytes(), &at); err != nil || len(at) != newcomerParts+1 {
		return nil, fmt.Errorf("what the process says is no list of times: %q", out.String())
	}
	var parts []Part
	last := began
	for i, t := range append(at, received) {
		t = max(t, last) // the others may have it before the newcomer has noted that it is raised
		parts = append(parts, Part{partNames[i], time.Duration(t - last)})
		last = t
	}
	return parts, nil
}

// newcomer is a process that joins, raises one event and stays until its standard input ends. It returns the exit
// status.
func newcomer(dir, event string) int {
	clock := machine.NewClock()
	at := []int64{clock.Now()}
	lap := func() { at = append(at, clock.Now()) }
	if err := join(dir, event, clock, lap, &at); err != nil {
		fmt.Fprintln(os.Stderr, "newcomer:", err)
		return 1
	}
	return 0
}

func join(dir, encoded string, clock machine.Clock, lap func(), at *[]int64) error {
	first, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	db, err := OpenDatabase(dir)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.pool.PingContext(ctx); err != nil {
		return err
	}
	lap()
	tcp, err := tcpbus.New(tcpbus.Config{})
	if err != nil {
		return err
	}
	watched := &watchedDatabase{Database: db, clock: clock}
	transport := &watchedTransport{Provider: tcp, clock: clock}
	b, err := carillon.Open(ctx, carillon.Config{Application: Application, Database: watched, Providers: []provider.Provider{transport}})
	if err != nil {
		return err
	}
	defer b.Close()
	*at = append(*at, transport.starting, transport.started, watched.snapshot)
	lap()
	b.Enable()
	if err := event.Raise(ctx, b, carillon.ID{}, first); err != nil {
		return err
	}
	lap()
	if err := json.NewEncoder(os.Stdout).Encode(*at); err != nil {
		return err
	}
	os.Stdin.Read(make([]byte, 1)) // until the benchmark has seen the event everywhere
	return b.Shutdown(ctx)         // in good order: the next one shall not find a dead instance
}

// A watchedTransport notes when it is started.
type watchedTransport struct {
	*tcpbus.Provider
	clock             machine.Clock
	starting, started int64
}

// Start implements provider.Provider.
func (w *watchedTransport) Start(ctx context.Context, env provider.Env) error {
	w.starting = w.clock.Now()
	defer func() { w.started = w.clock.Now() }()
	return w.Provider.Start(ctx, env)
}

// A watchedDatabase notes when the last snapshot was read.
type watchedDatabase struct {
	site.Database
	clock    machine.Clock
	snapshot int64
}

// Snapshot implements site.Database.
func (w *watchedDatabase) Snapshot(ctx context.Context, self site.StreamID, sites []site.ID) (site.Snapshot, error) {
	defer func() { w.snapshot = w.clock.Now() }()
	return w.Database.Snapshot(ctx, self, sites)
}
