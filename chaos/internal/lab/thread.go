//go:build linux

package lab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A thread is one operating system thread that lives as long as the lab. A
// namespace is entered by a thread, and "tell the child when its parent dies" means the
// thread that began the child, not the process, so all of it is done on one.
type thread struct {
	calls chan func()
	ended chan struct{}
}

func newThread() *thread {
	t := &thread{calls: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		for fn := range t.calls {
			fn()
		}
	}()
	return t
}

// stop ends the thread, and with it the processes begun by it that still run.
func (t *thread) stop() {
	close(t.calls)
	<-t.ended
}

// do runs fn on the thread.
func (t *thread) do(fn func() error) error {
	failed := make(chan error)
	t.calls <- func() { failed <- fn() }
	return <-failed
}

// in runs fn on the thread while it is in the namespace of that name.
func (t *thread) in(namespace string, fn func() error) error {
	return t.do(func() error {
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("lab: open the own namespace: %w", err)
		}
		defer home.Close()
		there, err := os.Open("/run/netns/" + namespace)
		if err != nil {
			return fmt.Errorf("lab: open namespace %s: %w", namespace, err)
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("lab: enter namespace %s: %w; run as root", namespace, err)
		}
		err = fn()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			panic(fmt.Sprintf("lab: leave namespace %s: %v", namespace, back)) // everything that follows would happen in there
		}
		return err
	})
}
