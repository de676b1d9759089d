package pgbus

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/provider/uplink"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// secret is the password of all users here.
const secret = "s3cr3t/@:%"

// newTest makes a Provider that the test closes.
func newTest(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}

// eventually polls cond until it is true, and returns false when that takes longer than patience.
func eventually(cond func() bool) bool { return providertest.Eventually(patience, cond) }

// start makes a Provider and starts it. The test closes it.
func start(t *testing.T, cfg Config) (*providertest.Endpoint, *Provider) {
	t.Helper()
	p := newTest(t, cfg)
	return providertest.Start(t, p), p
}

// pair starts two instances that know each other.
func pair(t *testing.T, a, b Config) (*providertest.Endpoint, *providertest.Endpoint) {
	t.Helper()
	one, _ := start(t, a)
	two, _ := start(t, b)
	providertest.Introduce(one, two)
	return one, two
}

// hears checks that what from sends reaches to. While again says so it is sent anew.
func hears(t *testing.T, from, to *providertest.Endpoint, frame string, again bool) {
	t.Helper()
	err := from.Provider.Send(t.Context(), [][]byte{[]byte(frame)})
	wait := patience
	if again {
		wait = 20 * time.Millisecond
	} else if err != nil {
		t.Fatalf("send %q: %v", short(frame), err)
	}
	if !eventually(func() bool {
		if to.Heard([]byte(frame), wait) {
			return true
		}
		if again {
			err = from.Provider.Send(t.Context(), [][]byte{[]byte(frame)})
		}
		return false
	}) {
		t.Fatalf("%q is not heard; last error of Send: %v", short(frame), err)
	}
}

func short(s string) string { return uplink.FirstLine(s) }

// large is a frame that no payload holds, which begins with s.
func large(s string) string { return s + strings.Repeat(".", inlineBytes) }

// startFails starts a Provider that must not start, and checks that it says want, in one line without the password.
func startFails(t *testing.T, p *Provider, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := providertest.NewEndpoint(t, p, provider.Env{}).Start(ctx)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("error %v, want one with %q", err, want)
	}
	t.Log(err)
	providertest.CheckNoSecret(t, secret, err, p)
}

var lastPrefix atomic.Int64
