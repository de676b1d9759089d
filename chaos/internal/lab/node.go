//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
)

// A Node is one machine of a lab: a network namespace with an interface to the other
// nodes and one to the site database. Use it from one goroutine at a time.
type Node struct {
	Index     int        // from 0
	Namespace string     // for "ip netns exec"
	Addr      netip.Addr // of EventInterface

	lab    *Lab
	faults Faults
	ruled  bool // it has packet filter rules
}

// Names of the interfaces in each node.
const (
	EventInterface    = "events0"
	DatabaseInterface = "database0"
)

// Faults are what is wrong with the network of one node. The zero Faults is
// nothing. Only IP packets are dropped, so that neighbours find each other
// at any loss.
type Faults struct {
	LossIn  float64 // probability that a packet to this node is lost; each node loses others
	LossOut float64 // probability that a packet of this node is lost, for all its receivers alike

	DeafTo      []*Node // nothing comes from them, though they may hear this node
	CutEvents   bool    // no packet passes EventInterface
	CutDatabase bool    // no packet passes DatabaseInterface

	BitsPerSecond int // at most so much leaves through EventInterface; 0 means as much as it can
}

// Start starts cmd in the node. It is killed when this process ends.
func (n *Node) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return n.lab.thread.in(n.Namespace, cmd.Start)
}

// SetFaults replaces what is wrong with the network of the node.
func (n *Node) SetFaults(f Faults) error {
	if n.ruled {
		n.lab.dropped += n.countDropped()
	}
	if err := n.lab.thread.in(n.Namespace, func() error { return run(rules(f), "nft", "-f", "-") }); err != nil {
		return fmt.Errorf("lab: set packet filter rules of node %d: %w", n.Index, err)
	}
	n.ruled = true
	if f.BitsPerSecond != n.faults.BitsPerSecond {
		args := []string{"qdisc", "replace", "dev", EventInterface, "root", "tbf",
			"rate", fmt.Sprintf("%dbit", f.BitsPerSecond), "burst", "16kb", "latency", "200ms"}
		if f.BitsPerSecond == 0 {
			args = []string{"qdisc", "del", "dev", EventInterface, "root"}
		}
		if err := n.lab.thread.in(n.Namespace, func() error { return run("", "tc", args...) }); err != nil {
			return fmt.Errorf("lab: set the bandwidth of node %d: %w", n.Index, err)
		}
	}
	n.faults = f
	return nil
}

// rules returns the packet filter rules that f means, as nft reads them.
func rules(f Faults) string {
	var events, database []string // drop conditions of what comes in
	var out []string              // and of what leaves for other nodes
	random := func(p float64) string {
		if p >= 1 {
			return "" // no condition
		}
		return fmt.Sprintf("numgen random mod 10000 < %.0f", p*10000)
	}
	if f.LossIn > 0 {
		events = append(events, random(f.LossIn))
	}
	if f.LossOut > 0 {
		out = append(out, random(f.LossOut))
	}
	for _, n := range f.DeafTo {
		events = append(events, "ip saddr "+n.Addr.String())
	}
	if f.CutEvents {
		events, out = append(events, ""), append(out, "")
	}
	if f.CutDatabase {
		database = append(database, "")
	}
	var b strings.Builder
	b.WriteString("table netdev chaos {}\ndelete table netdev chaos\ntable netdev chaos {\n")
	chain := func(name, hook, device string, conditions []string) {
		fmt.Fprintf(&b, "chain %s { type filter hook %s device %q priority 0;\n", name, hook, device)
		for _, c := range conditions {
			fmt.Fprintf(&b, "ether type ip %s counter drop\n", c)
		}
		b.WriteString("}\n")
	}
	chain("in", "ingress", EventInterface, events)
	chain("out", "egress", EventInterface, out)
	chain("database", "ingress", DatabaseInterface, database)
	b.WriteString("}\n")
	return b.String()
}

// countDropped returns how many packets the rules have dropped since they were set.
func (n *Node) countDropped() uint64 {
	var list string
	if err := n.lab.thread.in(n.Namespace, func() (err error) {
		list, err = output("nft", "list", "table", "netdev", "chaos")
		return err
	}); err != nil {
		return 0
	}
	var sum uint64
	for line := range strings.Lines(list) {
		if _, rest, ok := strings.Cut(line, "counter packets "); ok {
			var packets uint64
			fmt.Sscan(rest, &packets)
			sum += packets
		}
	}
	return sum
}
