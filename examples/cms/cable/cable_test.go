package cable_test

import (
	"context"
	"errors"
	"testing"

	"github.com/carillon-go/carillon/examples/cms/cable"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// plain is a provider that can do nothing beyond the contract.
type plain struct {
	env  provider.Env
	sent int
}

func (p *plain) Name() string                                    { return "plain" }
func (p *plain) Capabilities() provider.Capabilities             { return provider.Capabilities{} }
func (p *plain) Start(_ context.Context, env provider.Env) error { p.env = env; return nil }
func (p *plain) Send(_ context.Context, frames [][]byte) error   { p.sent += len(frames); return nil }
func (p *plain) Close() error                                    { return nil }

// able can do everything.
type able struct {
	plain
	alone, told int
}

func (p *able) SendTo(_ context.Context, _ site.StreamID, frames [][]byte) error {
	p.alone += len(frames)
	return nil
}
func (p *able) Addresses() []string           { return []string{"here"} }
func (p *able) SetMembers(_ provider.Members) { p.told++ }

func TestCable_FramesVanishWhileItIsCut(t *testing.T) {
	p := new(able)
	c := cable.New(p)
	got, done := 0, 0
	if err := c.Start(t.Context(), provider.Env{Deliver: func(b provider.Batch) { got += len(b.Frames); b.Done() }}); err != nil {
		t.Fatal(err)
	}
	frames := [][]byte{{1}, {2}}
	traffic := func() {
		t.Helper()
		if err := c.Send(t.Context(), frames); err != nil {
			t.Error(err)
		}
		if err := c.SendTo(t.Context(), site.StreamID{1}, frames[:1]); err != nil {
			t.Error(err)
		}
		p.env.Deliver(provider.Batch{Frames: frames, Done: func() { done++ }})
	}
	check := func(when string, sent, alone, received, in, out int) {
		t.Helper()
		lostIn, lostOut := c.Lost()
		if p.sent != sent || p.alone != alone || got != received || lostIn != uint64(in) || lostOut != uint64(out) {
			t.Errorf("%s: sent %d, alone %d, received %d, lost %d in and %d out; want %d %d %d %d %d", when, p.sent, p.alone, got, lostIn, lostOut, sent, alone, received, in, out)
		}
	}
	traffic()
	check("connected", 2, 1, 2, 0, 0)
	if !c.Cut() || c.Cut() || !c.IsCut() {
		t.Error("Cut does not say what it did")
	}
	traffic()
	check("cut", 2, 1, 2, 2, 3)
	if !c.Heal() || c.Heal() || c.IsCut() {
		t.Error("Heal does not say what it did")
	}
	traffic()
	check("connected again", 4, 2, 4, 2, 3)
	c.Mute(true)
	traffic()
	check("mute", 4, 2, 6, 2, 6)
	c.Mute(false)
	traffic()
	check("and no longer", 6, 3, 8, 2, 6)
	if done != 5 {
		t.Errorf("%d batches are done, want all 5", done)
	}
}

func TestCable_CanDoWhatItsProviderCan(t *testing.T) {
	p := new(able)
	c := cable.New(p)
	c.SetMembers(provider.Members{})
	if a := c.Addresses(); len(a) != 1 || p.told != 1 {
		t.Errorf("addresses %v, told %d times", a, p.told)
	}
	less := cable.New(new(plain))
	less.SetMembers(provider.Members{})
	if a := less.Addresses(); a != nil {
		t.Errorf("addresses of a provider without: %v", a)
	}
	if err := less.SendTo(t.Context(), site.StreamID{1}, nil); !errors.Is(err, provider.ErrUnreachable) {
		t.Errorf("SendTo of a provider without: %v", err)
	}
}

func TestCable_BesideIsCutAndHealedWithIt(t *testing.T) {
	p, q := new(able), new(able)
	c := cable.New(p)
	d := c.Beside(q)
	got := 0
	if err := d.Start(t.Context(), provider.Env{Deliver: func(b provider.Batch) { got += len(b.Frames) }}); err != nil {
		t.Fatal(err)
	}
	traffic := func() {
		t.Helper()
		if err := errors.Join(c.Send(t.Context(), [][]byte{{1}}), d.Send(t.Context(), [][]byte{{1}, {2}})); err != nil {
			t.Error(err)
		}
		q.env.Deliver(provider.Batch{Frames: [][]byte{{1}}})
	}
	traffic()
	c.Cut()
	traffic()
	in, out := c.Lost()
	if in2, out2 := d.Lost(); !d.IsCut() || p.sent != 1 || q.sent != 2 || got != 1 || in != 1 || out != 3 || in2 != in || out2 != out {
		t.Errorf("cut: sent %d and %d, received %d, lost %d in and %d out; want 1, 2, 1, 1, 3", p.sent, q.sent, got, in, out)
	}
	d.Heal()
	traffic()
	if c.IsCut() || p.sent != 2 || q.sent != 4 || got != 2 {
		t.Errorf("healed: sent %d and %d, received %d; want 2, 4, 2", p.sent, q.sent, got)
	}
}
