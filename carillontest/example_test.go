package carillontest_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

// PageChanged is the parameter of an event of the application.
type PageChanged struct{ Slug string }

var pageChanged = carillon.Define[PageChanged](carillon.MustParseID("0f0e9b0a-55cb-4a55-9c1b-0c7d2f6b1a01"), "page changed")

// pageCache is the part of the application that is tested.
type pageCache struct {
	mu    sync.Mutex
	pages map[string]string
}

// subscribe keeps the cache in step with the other instances.
func (c *pageCache) subscribe(b *carillon.Broker) {
	pageChanged.OnRaised(b, func(_ context.Context, r carillon.Raised[PageChanged]) {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pages, r.Parameter.Slug)
	})
	pageChanged.OnMissed(b, func(context.Context, carillon.Missed) {
		c.mu.Lock()
		defer c.mu.Unlock()
		clear(c.pages)
	})
}

func (c *pageCache) put(slug, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages[slug] = text
}

func (c *pageCache) has(slug string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.pages[slug]
	return ok
}

// In a test file, this is the body of func TestPageCache_FollowsTheOtherInstance(t *testing.T).
func Example() {
	t := exampleTB{cleanups: new([]func())}
	defer t.end()

	caches := []*pageCache{{pages: map[string]string{}}, {pages: map[string]string{}}}
	c := carillontest.NewCluster(t, 2, carillontest.Wire(func(i int, b *carillon.Broker) {
		caches[i].subscribe(b)
		caches[i].put("welcome", "old text")
		caches[i].put("about", "old text")
	}), carillontest.Configure(func(_ int, cfg *carillon.Config) {
		cfg.MissedAfter = 100 * time.Millisecond // in a testing/synctest bubble, the usual 10 s cost nothing
	}))

	// A page is changed on instance 1, and instance 0 drops its copy.
	if err := pageChanged.Raise(t.Context(), c.Broker(1), carillon.ID{}, PageChanged{"welcome"}); err != nil {
		t.Fatalf("raise: %v", err)
	}
	carillontest.Eventually(t, "instance 0 drops the page", func() bool { return !caches[0].has("welcome") })
	fmt.Println("the other page is still cached:", caches[0].has("about"))

	// The news of a change does not arrive, and instance 0 drops everything.
	seen := carillontest.Record(t, c.Broker(0), pageChanged)
	c.Lose(0)
	if err := pageChanged.Raise(t.Context(), c.Broker(1), carillon.ID{}, PageChanged{"about"}); err != nil {
		t.Fatalf("raise: %v", err)
	}
	c.Heal(0)
	missed := seen.WaitMissed(1)[0]
	fmt.Println("missed:", missed.Count, "of", missed.Source.Server, "because of", missed.Reason)
	carillontest.Eventually(t, "instance 0 drops all pages", func() bool { return !caches[0].has("about") })

	// Output:
	// the other page is still cached: true
	// missed: 1 of instance-1 because of timeout
}

// exampleTB stands for the *testing.T that a test has and an example has not.
type exampleTB struct {
	testing.TB
	cleanups *[]func()
}

func (exampleTB) Helper()                           {}
func (exampleTB) Output() io.Writer                 { return io.Discard }
func (exampleTB) Context() context.Context          { return context.Background() }
func (t exampleTB) Cleanup(fn func())               { *t.cleanups = append(*t.cleanups, fn) }
func (exampleTB) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t exampleTB) end() {
	for _, fn := range *t.cleanups {
		fn()
	}
}
