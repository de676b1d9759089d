// Package memberlist carries events through hashicorp/memberlist, as one best-effort packet per member.
package memberlist

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/carillon-go/carillon/bench/internal/opponent/module"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const joinPoll = 10 * time.Millisecond

// Systems returns the one.
func Systems() []system.System {
	window := window()
	return []system.System{{
		Name:  "memberlist",
		Title: "memberlist " + module.Version("github.com/hashicorp/memberlist") + ", best effort",
		Note: fmt.Sprintf("LAN configuration without compression; SendBestEffort to each member, a packet each; its queues give "+
			"the last first; at most once, and paced from outside, because it paces nobody: at most %d events on their way", window),
		Window: window,
		Publish: func(_ context.Context, s system.Spec, _ string) (system.Publisher, error) {
			return newPublisher(s)
		},
		Subscribe: func(_ context.Context, s system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
			return subscribe(s, address, deliver)
		},
	}}
}

// window returns how many events may be on their way to a member so that none is dropped: as many as fit into
// the receive buffer that Linux gives, and half of what the library queues behind it. More is not faster.
func window() int {
	const (
		most           = 512
		asked          = 2 << 20 // by the library
		untouched      = 208 << 10
		packetBytes    = 4 << 10 // of buffer, for events of up to 3 KiB
		kernelsFactor  = 2       // it doubles what is asked for
		settingOfLinux = "/proc/sys/net/core/rmem_max"
	)
	limit := untouched
	if text, err := os.ReadFile(settingOfLinux); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			limit = n
		}
	}
	return min(kernelsFactor*min(limit, asked)/packetBytes, most)
}

// A member is this process's membership.
type member struct {
	list *memberlist.Memberlist
	log  *os.File
}

func join(s system.Spec, delegate memberlist.Delegate, others ...string) (*member, error) {
	name := rand.Text()
	file, err := os.Create(filepath.Join(s.Dir, "memberlist-"+name+".log"))
	if err != nil {
		return nil, err
	}
	config := memberlist.DefaultLANConfig()
	config.Name = name
	config.BindAddr, config.BindPort = "127.0.0.1", 0
	config.AdvertiseAddr, config.AdvertisePort = "127.0.0.1", 0
	config.EnableCompression = false
	config.Delegate = delegate
	config.Logger = log.New(file, "", log.LstdFlags)
	m := &member{log: file}
	if m.list, err = memberlist.Create(config); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if len(others) > 0 {
		if _, err := m.list.Join(others); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// Close ends the membership without a farewell: the others end too.
func (m *member) Close() error { return errors.Join(m.list.Shutdown(), m.log.Close()) }

// A publisher sends events. It implements system.Publisher.
type publisher struct {
	*member
	subscribers int
	others      []*memberlist.Node // the subscribers, once they are there
}

func newPublisher(s system.Spec) (*publisher, error) {
	m, err := join(s, nil)
	if err != nil {
		return nil, err
	}
	return &publisher{member: m, subscribers: s.Subscribers}, nil
}

// Address is what subscribers join.
func (p *publisher) Address() string { return p.list.LocalNode().Address() }

// Ready returns when all subscribers are members.
func (p *publisher) Ready(ctx context.Context) error {
	again := time.NewTicker(joinPoll)
	defer again.Stop()
	for p.list.NumMembers() <= p.subscribers {
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("memberlist: %d of %d subscribers have joined: %w", p.list.NumMembers()-1, p.subscribers, ctx.Err())
		}
	}
	for _, node := range p.list.Members() {
		if node.Name != p.list.LocalNode().Name {
			p.others = append(p.others, node)
		}
	}
	return nil
}

// Publish sends the event to each subscriber.
func (p *publisher) Publish(event []byte) error {
	for _, node := range p.others {
		if err := p.list.SendBestEffort(node, event); err != nil {
			return err
		}
	}
	return nil
}

// Flush does nothing: each event is sent at once.
func (p *publisher) Flush() error { return nil }

func subscribe(s system.Spec, address string, deliver func(event []byte)) (*member, error) {
	return join(s, delegate{deliver}, address)
}

// A delegate receives events, and has nothing to say itself.
type delegate struct{ deliver func(event []byte) }

func (d delegate) NotifyMsg(event []byte)          { d.deliver(event) }
func (delegate) NodeMeta(int) []byte               { return nil }
func (delegate) GetBroadcasts(int, int) [][]byte   { return nil }
func (delegate) LocalState(join bool) []byte       { return nil }
func (delegate) MergeRemoteState(_ []byte, _ bool) {}
