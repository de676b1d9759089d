package providertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// echoServer returns every line that it is sent.
func echoServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	return l.Addr().String()
}

// ask sends a line through c and returns what comes back within a while.
func ask(c net.Conn, line string, within time.Duration) error {
	c.SetDeadline(time.Now().Add(within))
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return err
}

func dial(t *testing.T, address string) net.Conn {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRelay_PassesOnUntilItIsCut(t *testing.T) {
	r := NewRelay(t, echoServer(t))
	c := dial(t, r.Addr())
	if err := ask(c, "at first", time.Minute); err != nil {
		t.Fatal(err)
	}
	r.Cut()
	if err := ask(c, "through what is cut", time.Minute); err == nil || isTimeout(err) {
		t.Errorf("a connection that is cut: %v, want it closed", err)
	}
	if err := ask(dial(t, r.Addr()), "a new one", time.Minute); err == nil || isTimeout(err) {
		t.Errorf("a new connection while the relay is cut: %v, want it closed", err)
	}
	r.Heal()
	if err := ask(dial(t, r.Addr()), "healed", time.Minute); err != nil {
		t.Errorf("a connection after Heal: %v", err)
	}
}

func TestRelay_HoldsWithoutAWord(t *testing.T) {
	r := NewRelay(t, echoServer(t))
	c := dial(t, r.Addr())
	r.Hold()
	r.Hold()
	if err := ask(c, "while it holds", 50*time.Millisecond); !isTimeout(err) {
		t.Errorf("while it holds: %v, want silence", err)
	}
	r.Release()
	r.Release()
	if err := ask(c, "released", time.Minute); err != nil {
		t.Errorf("after Release: %v", err)
	}
}

// What is asked gets through, and only the answer waits.
func TestRelay_HoldsAnswersAlone(t *testing.T) {
	heard := make(chan string, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		lines := bufio.NewReader(c)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			heard <- line
			io.WriteString(c, line)
		}
	}()
	r := NewRelay(t, l.Addr().String())
	c := dial(t, r.Addr())
	if err := ask(c, "at first", time.Minute); err != nil {
		t.Fatal(err)
	}
	<-heard
	r.HoldAnswers()
	if err := ask(c, "while it holds", 50*time.Millisecond); !isTimeout(err) {
		t.Errorf("while it holds: %v, want silence", err)
	}
	if got := <-heard; got != "while it holds\n" {
		t.Errorf("the server heard %q", got)
	}
	r.Release()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if got, err := bufio.NewReader(c).ReadString('\n'); got != "while it holds\n" {
		t.Errorf("after Release: %q, %v; want the answer", got, err)
	}
}

func TestRelay_SpeaksAsTheServer(t *testing.T) {
	r := NewRelay(t, echoServer(t))
	c := dial(t, r.Addr())
	if err := ask(c, "hello", time.Minute); err != nil { // it is connected
		t.Fatal(err)
	}
	r.Say("from nobody\n")
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if got, err := bufio.NewReader(c).ReadString('\n'); got != "from nobody\n" {
		t.Errorf("it heard %q, %v", got, err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
