//go:build linux

// Package lab makes a laboratory of network namespaces in which real processes
// run: each node has a network of its own, joined to the others by the kernel's
// bridge or by a hub in this process, and can be disturbed. It needs Linux,
// root, and the programs ip, tc and nft.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Config says what lab to make.
type Config struct {
	Nodes int // 1 to MaxNodes

	// Hub has packets pass a hub in this process, which can disorder them, instead of
	// the bridge of the kernel, which is faster.
	Hub bool

	// Seed is for what the hub decides by chance.
	Seed uint64
}

// MaxNodes bounds the nodes of a lab: their addresses are one byte.
const MaxNodes = 200

// A Lab is a number of nodes and what joins them. Its methods and those of its nodes are to be
// used by one goroutine at a time.
type Lab struct {
	Folder string // for files, in memory; every user may pass through it
	Nodes  []*Node

	base    string // namespace of the bridges and of database servers
	thread  *thread
	hub     *hub // nil: a bridge
	dropped uint64
}

// New makes a lab. It first removes what labs of dead processes left. Close must
// be called.
func New(cfg Config) (_ *Lab, err error) {
	if cfg.Nodes < 1 || cfg.Nodes > MaxNodes {
		return nil, fmt.Errorf("lab: %d nodes; choose 1 to %d", cfg.Nodes, MaxNodes)
	}
	if err := Check(); err != nil {
		return nil, err
	}
	if err := Sweep(); err != nil {
		return nil, fmt.Errorf("lab: remove what others left: %w", err)
	}
	me, err := self()
	if err != nil {
		return nil, err
	}
	folder, err := makeFolder(me)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(folder)
	l := &Lab{Folder: folder, base: name + "-base", thread: newThread()}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	// In memory, because a disk that others keep busy can make everything stand still for seconds,
	// and then it is not the faults of this lab that are tried.
	if err := unix.Mount("tmpfs", l.Folder, "tmpfs", 0, "mode=0711"); err != nil {
		return nil, fmt.Errorf("lab: mount a file system in memory: %w", err)
	}
	for i := range cfg.Nodes {
		l.Nodes = append(l.Nodes, &Node{
			Index: i, Namespace: fmt.Sprintf("%s-%d", name, i+1), Addr: nodeAddr(i), lab: l,
		})
	}
	if err := l.addBase(); err != nil {
		return nil, fmt.Errorf("lab: make the namespace that joins the nodes: %w", err)
	}
	var ports []*os.File
	for _, n := range l.Nodes {
		port, err := l.addNode(n, cfg.Hub)
		if port != nil {
			ports = append(ports, port)
		}
		if err != nil {
			for _, p := range ports {
				p.Close()
			}
			return nil, fmt.Errorf("lab: make node %d: %w", n.Index, err)
		}
	}
	if cfg.Hub {
		l.hub = newHub(cfg.Seed, ports)
	}
	return l, nil
}

// makeFolder makes the folder of a lab. Its name is that of the lab, and no other one has it.
func makeFolder(me owner) (string, error) {
	temp, err := tempDir()
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		folder := filepath.Join(temp, fmt.Sprintf("%v%d", me, n))
		if err := os.Mkdir(folder, 0o711); !errors.Is(err, os.ErrExist) {
			return folder, err
		}
	}
}

// Check returns an error that names what is missing to make a lab here.
func Check() error {
	if os.Getuid() != 0 {
		return errors.New("lab: network namespaces need root; run it with sudo, or as root in a container that is privileged")
	}
	for program, debian := range map[string]string{"ip": "iproute2", "tc": "iproute2", "nft": "nftables"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("lab: %w; install the package %s", err, debian)
		}
	}
	return nil
}

func nodeAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 67, 0, byte(i + 1)}) }

// DatabaseAddr is where a database server in the lab is reached by all nodes.
func (l *Lab) DatabaseAddr() netip.Addr { return netip.AddrFrom4([4]byte{10, 68, 0, 254}) }

func (l *Lab) addBase() error {
	if err := run("", "ip", "netns", "add", l.base); err != nil {
		return err
	}
	return run(fmt.Sprintf(`link set lo up
link add events type bridge mcast_snooping 0
link set events up
link add database type bridge mcast_snooping 0
addr add %v/24 dev database
link set database up
`, l.DatabaseAddr()), "ip", "-n", l.base, "-batch", "-")
}

// addNode makes the namespace of n and joins it to the others. The file returned is for the hub.
func (l *Lab) addNode(n *Node, hub bool) (port *os.File, err error) {
	if err := run("", "ip", "netns", "add", n.Namespace); err != nil {
		return nil, err
	}
	number := n.Index + 1
	if err := l.thread.in(n.Namespace, func() error {
		// Nothing here speaks IPv6, and its neighbour discovery would be counted among what is dropped.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if hub {
			port, err = openTAP(EventInterface)
		}
		return err
	}); err != nil {
		return port, err
	}
	base := fmt.Sprintf(`link add database%d type veth peer name %s netns %s
link set database%d master database up
`, number, DatabaseInterface, n.Namespace, number)
	if !hub {
		base += fmt.Sprintf(`link add events%d type veth peer name %s netns %s
link set events%d master events up
`, number, EventInterface, n.Namespace, number)
	}
	if err := run(base, "ip", "-n", l.base, "-batch", "-"); err != nil {
		return port, err
	}
	// The hub finds a node by the last byte of its hardware address.
	return port, run(fmt.Sprintf(`link set lo up
link set %[1]s address 02:00:00:00:00:%02[2]x
addr add %[3]v/24 broadcast + dev %[1]s
link set %[1]s up
addr add 10.68.0.%[2]d/24 dev %[4]s
link set %[4]s up
`, EventInterface, number, n.Addr, DatabaseInterface), "ip", "-n", n.Namespace, "-batch", "-")
}

// Start starts cmd, a database server, where all nodes reach it at DatabaseAddr. It gets the
// signal given when this process ends.
func (l *Lab) Start(cmd *exec.Cmd, atEnd unix.Signal) error {
	cmd.SysProcAttr.Pdeathsig = atEnd
	return l.thread.in(l.base, cmd.Start)
}

// Disk mounts a file system of so many bytes in the lab's folder.
func (l *Lab) Disk(name string, bytes int) (folder string, err error) {
	folder = filepath.Join(l.Folder, name)
	if err := os.Mkdir(folder, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		return "", fmt.Errorf("lab: mount a disk of %d bytes: %w", bytes, err)
	}
	return folder, nil
}

// SetDisorder replaces what the hub does to packets.
func (l *Lab) SetDisorder(d Disorder) error {
	if l.hub == nil {
		if d == (Disorder{}) {
			return nil
		}
		return errors.New("lab: only a lab with a hub disorders packets; set Config.Hub")
	}
	l.hub.set(d)
	return nil
}

// Done returns what was done to packets so far.
func (l *Lab) Done() Done {
	var d Done
	if l.hub != nil {
		d = l.hub.counts()
	}
	d.Dropped = l.dropped
	for _, n := range l.Nodes {
		if n.ruled {
			d.Dropped += n.countDropped()
		}
	}
	return d
}

// Close kills what runs in the lab and removes it. Processes started in it must have been
// waited for, or be waited for afterwards.
func (l *Lab) Close() error {
	var errs []error
	if l.hub != nil {
		errs = append(errs, l.hub.close())
	}
	l.thread.stop()
	for _, n := range l.Nodes {
		errs = append(errs, removeNamespace(n.Namespace))
	}
	errs = append(errs, removeNamespace(l.base), unmount(l.Folder), os.RemoveAll(l.Folder))
	return errors.Join(errs...)
}

// String names the nodes with their namespaces, for who wants to look into a running lab.
func (l *Lab) String() string {
	var b strings.Builder
	for _, n := range l.Nodes {
		fmt.Fprintf(&b, "node %d: ip netns exec %s ...\n", n.Index, n.Namespace)
	}
	return b.String()
}
