//go:build linux

package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/stat"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// A goal is one thing that must hold, and where we want to stand.
type goal struct {
	name     string
	measured string // what the figure is
	better   direction
	must     float64 // none: there is only a stretch
	stretch  float64 // none: there is only a must
	figure   func(*results) (stat.Summary, error)
}

// direction says which figures are good.
type direction int

const (
	atLeast direction = iota
	atMost
)

var none = math.NaN()

// The settings in which systems are compared.
var (
	n3      = cell{3, 128}
	n8      = cell{8, 128}
	n3large = cell{3, 1024}
)

// pacedRate is the open loop's, in events a second.
const pacedRate = 2000

// goals is the table. Ratios are taken round by round, of systems measured one shortly after the other; the figure is their median.
var goals = []goal{
	{"tcp-128-n3-vs-nats", "events/s, tcpbus ÷ NATS core; 128 B, N=3", atLeast, 2.5, 3.5, ratioOf(perSecond, n3, "tcpbus", "nats")},
	{"tcp-128-n3-vs-nats-packed", "events/s, tcpbus ÷ NATS core packed by hand, no MAC; 128 B, N=3", atLeast, 1, 1.3, ratioOf(perSecond, n3, "tcpbus", "nats-packed")},
	{"tcp-128-n3-vs-zmq", "events/s, tcpbus ÷ ZeroMQ; 128 B, N=3", atLeast, 2, none, ratioOf(perSecond, n3, "tcpbus", "zmq")},
	{"tcp-128-n3-vs-limit", "events/s, tcpbus ÷ raw TCP with one HMAC per batch; 128 B, N=3", atLeast, none, 0.7, ratioOf(perSecond, n3, "tcpbus", "limit-tcp-hmac-batch")},
	{"tcp-128-n8-vs-nats", "events/s, tcpbus ÷ NATS core; 128 B, N=8", atLeast, 3, 5, ratioOf(perSecond, n8, "tcpbus", "nats")},
	{"tcp-1k-n3-vs-nats", "events/s, tcpbus ÷ NATS core; 1 KiB, N=3", atLeast, 1.2, 1.6, ratioOf(perSecond, n3large, "tcpbus", "nats")},
	{"gcm-128-n3-vs-hmac", "events/s, tcpbus encrypting ÷ with plain HMAC; 128 B, N=3", atLeast, 1, 1.5, ratioOf(perSecond, n3, "tcpbus-gcm", "tcpbus-hmac")},
	{"gcm-128-n3-vs-nats", "events/s, tcpbus encrypting ÷ NATS core; 128 B, N=3", atLeast, none, 5, ratioOf(perSecond, n3, "tcpbus-gcm", "nats")},
	{"udp-128-n3-vs-nats", "events/s, udpbus with frames of 1,200 B ÷ NATS core; 128 B, N=3", atLeast, 1.2, 1.8, ratioOf(perSecond, n3, "udpbus", "nats")},
	{"udp-128-n3-missed", "events missed by udpbus with frames of 1,200 B at full speed; 128 B, N=3", atMost, 0, none, lostBy(n3, "udpbus")},
	{"udp-large-128-n3-vs-nats", "events/s, udpbus with large datagrams ÷ NATS core; 128 B, N=3", atLeast, 3, 5, ratioOf(perSecond, n3, "udpbus-large", "nats")},
	{"udp-large-128-n3-missed", "events missed by udpbus with large datagrams at full speed; 128 B, N=3", atMost, 0, none, lostBy(n3, "udpbus-large")},
	{"tcp-128-n3-missed", "events missed by tcpbus at full speed; 128 B, N=3", atMost, 0, none, lostBy(n3, "tcpbus")},
	{"tcp-cpu-n3-vs-nats", "CPU per delivery, tcpbus ÷ NATS core; 128 B, N=3", atMost, 0.35, 0.22, ratioOf(cpu, n3, "tcpbus", "nats")},
	{"tcp-p50-n3-vs-nats", "p50 at 2,000/s, tcpbus ÷ NATS core; N=3", atMost, 0.6, none, ratioOf(p50, n3, "tcpbus", "nats")},
	{"tcp-p50-n3-vs-limit", "p50 at 2,000/s, tcpbus ÷ raw TCP; N=3", atMost, 1.6, 1.35, ratioOf(p50, n3, "tcpbus", "limit-tcp")},
	{"udp-p50-n3-vs-nats", "p50 at 2,000/s, udpbus ÷ NATS core; N=3", atMost, 0.6, none, ratioOf(p50, n3, "udpbus", "nats")},
	{"udp-p50-n3-vs-limit", "p50 at 2,000/s, udpbus ÷ raw TCP; N=3", atMost, 1.6, 1.35, ratioOf(p50, n3, "udpbus", "limit-tcp")},
	{"tcp-p99-half-load-vs-limit", "p99 at half of tcpbus's throughput, tcpbus ÷ raw TCP at the same rate; N=3", atMost, 5, none, ratioOf(halfP99, n3, "tcpbus", "limit-tcp")},
	{"local-1-vs-bare", "raise to 1 subscriber ÷ bare look-up and call", atMost, 4, 3, localRatio(1)},
	{"local-10-vs-bare", "raise to 10 subscribers ÷ bare look-up and calls", atMost, 4, 3, localRatio(10)},
	{"local-100-vs-bare", "raise to 100 subscribers ÷ bare look-up and calls", atMost, 4, 3, localRatio(100)},
	{"local-allocations", "allocations of a raise to 1, 10 or 100 subscribers, the most of them", atMost, 0, none, localAllocations},
	{"start-ms", "ms from exec to the first event delivered at 3 running peers (SQLite, TCP)", atMost, 150, 60, (*results).start},
	{"idle-cpu-percent", "% of a core, the busiest of 9 idle instances", atMost, 0.5, 0.2, idleMost(func(i harness.Idle) float64 { return 100 * i.CPU })},
	{"idle-memory-mib", "MiB resident, the largest of 9 idle instances", atMost, 30, none, idleMost(func(i harness.Idle) float64 { return float64(i.Resident) / (1 << 20) })},
	{"natsbus-128-n3-vs-nats", "events/s, natsbus ÷ NATS core itself; 128 B, N=3", atLeast, 1.3, none, ratioOf(perSecond, n3, "natsbus", "nats")},
	// For growth nothing but "flat" and "linear" is asked for. The figures are what we take that to be.
	{"growth-udp-flat", "sender's CPU per event of udpbus, most ÷ fewest instances, without what bare datagrams grow by", atMost, 1.5, none, growthRatio("udpbus", "limit-udp")},
	{"growth-tcp-linear", "R² of a line through the sender's CPU per event of tcpbus by instances", atLeast, 0.9, none, growthFit("tcpbus")},
}

func ratioOf(m metric, c cell, system, reference string) func(*results) (stat.Summary, error) {
	return func(r *results) (stat.Summary, error) { return r.ratio(m, c, system, reference) }
}

func lostBy(c cell, system string) func(*results) (stat.Summary, error) {
	return func(r *results) (stat.Summary, error) {
		n, err := r.lost(place{c, system})
		return stat.Summarize([]float64{float64(n)}), err
	}
}

func localRatio(subscribers int) func(*results) (stat.Summary, error) {
	return func(r *results) (stat.Summary, error) {
		l, err := r.localFor(subscribers)
		return l.Ratio, err
	}
}

func localAllocations(r *results) (stat.Summary, error) {
	most := 0.0
	for _, n := range localSubscribers {
		l, err := r.localFor(n)
		if err != nil {
			return stat.Summary{}, err
		}
		most = max(most, l.Allocations)
	}
	return stat.Summarize([]float64{most}), nil
}

// idleMost is the highest of all instances, because the goal is for each.
func idleMost(figure func(harness.Idle) float64) func(*results) (stat.Summary, error) {
	return func(r *results) (stat.Summary, error) {
		s, err := r.idleOf(figure)
		return stat.Summary{Rounds: s.Rounds, Median: s.Max, Min: s.Min, Max: s.Max}, err
	}
}

// growthRatio compares the largest site with the smallest. On the loopback interface the kernel hands a multicast datagram to
// every receiver at the sender's cost, so what bare datagrams grow by is taken off.
func growthRatio(system, bare string) func(*results) (stat.Summary, error) {
	return func(r *results) (stat.Summary, error) {
		_, err := r.line(system)
		_, errBare := r.line(bare)
		if err := errors.Join(err, errBare); err != nil {
			return stat.Summary{}, err
		}
		first, last := ends(r.growth[system])
		bareFirst, bareLast := ends(r.growth[bare])
		if first.Instances != bareFirst.Instances || last.Instances != bareLast.Instances {
			return stat.Summary{}, fmt.Errorf("growth of %s and of %s between the same sizes: %w", system, bare, errNotMeasured)
		}
		grown := last.SenderCPU.Median - (bareLast.SenderCPU.Median - bareFirst.SenderCPU.Median)
		return stat.Summarize([]float64{grown / first.SenderCPU.Median}), nil
	}
}

// ends returns the smallest site and the largest.
func ends(points []growthPoint) (first, last growthPoint) { return points[0], points[len(points)-1] }

func growthFit(system string) func(*results) (stat.Summary, error) {
	return func(r *results) (stat.Summary, error) {
		l, err := r.line(system)
		return stat.Summarize([]float64{l.R2}), err
	}
}

// A verdict is how a goal stands.
type verdict struct {
	goal
	stat.Summary       // of what was measured; of no rounds if nothing was
	err          error // why it does not count, or not all of it; nil: it does
}

func (g goal) judge(r *results) verdict {
	s, err := g.figure(r)
	return verdict{g, s, err}
}

// reaches reports whether the figure counts and is as good as the bound. There may be no bound.
func (v verdict) reaches(bound float64) bool {
	switch {
	case v.err != nil || v.Rounds == 0:
		return false
	case math.IsNaN(bound):
		return true
	case v.better == atLeast:
		return v.Median >= bound
	}
	return v.Median <= bound
}

// ok reports whether the must holds.
func (v verdict) ok() bool { return v.reaches(v.must) }

// holds reports whether half of the must does: what is below that has collapsed.
func (v verdict) holds() bool {
	half := v.must / 2
	if v.better == atMost {
		half = v.must * 2
	}
	return v.reaches(half)
}

// String is the line that people and programs read: goal NAME measured MUST STRETCH ok|short.
func (v verdict) String() string {
	word := "short"
	if v.ok() {
		word = "ok"
	}
	return fmt.Sprintf("goal %s %s %s %s %s", v.name, v.value(), v.bound(v.must), v.bound(v.stretch), word)
}

// value is what was measured, "lost" if events were, and "-" if nothing was.
func (v verdict) value() string {
	switch {
	case errors.As(v.err, new(*harness.LossError)):
		return "lost"
	case v.err != nil && !errors.Is(v.err, system.ErrMissing) && !errors.Is(v.err, errNotMeasured):
		return "failed"
	case v.err != nil, v.Rounds == 0:
		return "-"
	}
	return figure(v.Median)
}

func (v verdict) bound(b float64) string {
	switch {
	case math.IsNaN(b):
		return "-"
	case v.better == atLeast:
		return ">=" + figure(b)
	}
	return "<=" + figure(b)
}

// figure writes a number with three digits that say something.
func figure(f float64) string {
	switch a := math.Abs(f); {
	case f == math.Trunc(f), a >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
	return strconv.FormatFloat(f, 'f', 3, 64)
}
