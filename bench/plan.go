//go:build linux

package main

import (
	"slices"
	"time"
)

// A plan is what one command measures. In every round each probe is measured once, in their order, so that
// what the machine does beside is spread over all of them.
type plan struct {
	rounds   int
	burst    time.Duration // at full speed
	pacedFor time.Duration // of an open loop
	probes   []probe

	local       []int         // numbers of subscribers in one process; nil: that is not measured
	starts      int           // how often the start of a process is measured
	idleFor     time.Duration // 0: idle instances are not measured
	growth      []int         // numbers of instances; nil: growth is not measured
	growthFor   time.Duration
	growthTimes int // rounds of growth
	growthOf    []string
}

// A probe is one system in one cell.
type probe struct {
	place
	paced bool // also latency at pacedRate

	// halfOf, if set, asks also for latency at half of what that system, which comes before in the round, delivers at most in this
	// cell.
	halfOf string
}

var localSubscribers = []int{1, 10, 100}

const (
	startPeers = 3
	idlePeers  = 8
	growthRate = 1000 // events a second: a load that 32 instances on two cores stand
)

func at(c cell, names ...string) (probes []probe) {
	for _, n := range names {
		probes = append(probes, probe{place: place{c, n}})
	}
	return probes
}

// withLatency adds to the probes what is asked for latency. tcpbus comes before limit-tcp in a round, since it says what
// half of the maximum load is.
func withLatency(probes []probe, names ...string) []probe {
	for i := range probes {
		p := &probes[i]
		p.paced = slices.Contains(names, p.System)
		if p.paced && (p.System == "tcpbus" || p.System == "limit-tcp") {
			p.halfOf = "tcpbus"
		}
	}
	return probes
}

// quickPlan measures every goal in less than three minutes.
func quickPlan() plan {
	return plan{
		rounds: 3, burst: 800 * time.Millisecond, pacedFor: 800 * time.Millisecond,
		probes: slices.Concat(
			withLatency(at(n3, "tcpbus", "nats", "natsbus", "tcpbus-hmac", "tcpbus-gcm", "nats-packed", "udpbus", "limit-tcp", "udpbus-large", "limit-tcp-hmac-batch", "zmq"),
				"tcpbus", "nats", "udpbus", "limit-tcp"),
			at(n8, "tcpbus", "nats"),
			at(n3large, "tcpbus", "nats"),
		),
		local: localSubscribers, starts: 9, idleFor: 6 * time.Second,
		growth: []int{2, 8, 16}, growthFor: time.Second, growthTimes: 2, growthOf: []string{"tcpbus", "udpbus", "limit-udp"},
	}
}

// guardPlan measures, in little more than a minute, what needs no server but NATS.
func guardPlan() plan {
	return plan{
		rounds: 2, burst: 500 * time.Millisecond, pacedFor: 500 * time.Millisecond,
		probes: slices.Concat(
			withLatency(at(n3, "tcpbus", "nats", "tcpbus-hmac", "tcpbus-gcm", "nats-packed", "udpbus", "limit-tcp", "udpbus-large"),
				"tcpbus", "nats", "udpbus", "limit-tcp"),
			at(n8, "tcpbus", "nats"),
			at(n3large, "tcpbus", "nats"),
		),
		local: localSubscribers, starts: 5, idleFor: 4 * time.Second,
	}
}

// fullPlan measures everything, each run for so long.
func fullPlan(rounds int, length time.Duration) plan {
	p := plan{
		rounds: rounds, burst: length, pacedFor: length,
		local: localSubscribers, starts: 15, idleFor: 10 * length,
		growth: []int{2, 4, 8, 16, 32}, growthFor: length, growthTimes: min(rounds, 3),
		growthOf: []string{"tcpbus", "tcpbus-gcm", "udpbus", "nats", "limit-tcp", "limit-udp"},
	}
	var names []string
	for _, s := range systems() {
		names = append(names, s.Name)
	}
	p.probes = slices.Concat(
		withLatency(at(n3, names...), names...),
		at(cell{1, 128}, names...),
		at(n8, names...),
		at(n3large, "tcpbus", "nats", "tcpbus-hmac", "tcpbus-gcm", "zmq", "udpbus", "redis", "udpbus-large", "nats-packed",
			"limit-tcp", "limit-tcp-hmac-batch", "limit-tcp-gmac-batch"),
	)
	return p
}
