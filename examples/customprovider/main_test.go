//go:build unix

package main

import (
	"bufio"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// The provider is chosen by its name in appsettings.json, and carries what is typed.
func TestRun_ChosenByNameFromTheSettings(t *testing.T) {
	text, err := os.ReadFile("appsettings.json")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(shortFolder(t))
	if err := os.WriteFile("appsettings.json", text, 0o600); err != nil {
		t.Fatal(err)
	}
	type instance struct {
		in    *io.PipeWriter
		lines <-chan string
		ended <-chan error
	}
	start := func() instance {
		stdin, in := io.Pipe()
		stdout, out := io.Pipe()
		lines, ended := make(chan string, 16), make(chan error, 1)
		go func() {
			ended <- run(t.Context(), stdin, out)
			out.Close()
		}()
		go func() {
			for s := bufio.NewScanner(stdout); s.Scan(); {
				lines <- s.Text()
			}
			close(lines)
		}()
		return instance{in, lines, ended}
	}
	says := func(i instance, want string) {
		t.Helper()
		select {
		case line, ok := <-i.lines:
			if !ok {
				t.Fatalf("it ended: %v", <-i.ended)
			}
			if line != want {
				t.Errorf("it says %q, want %q", line, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("it does not say %q", want)
		}
	}
	one := start()
	says(one, "1 here, over unix")
	two := start()
	says(two, "2 here, over unix")
	io.WriteString(one.in, "hello\n")
	says(two, "heard: hello")
	long := strings.Repeat("x", 10_000) // more than a datagram holds
	io.WriteString(two.in, long+"\n")
	says(one, "heard: "+long)
	for _, i := range []instance{one, two} {
		i.in.Close()
		if err := <-i.ended; err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir("sockets"); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

func TestRun_SaysWhatIsWrongInItsSection(t *testing.T) {
	for _, tt := range []struct{ section, want string }{
		{`{}`, "Carillon:Unix:Folder: is missing: name the folder"},
		{`{"Folder": ["sockets"]}`, "appsettings.json:2: Carillon:Unix:Folder: want a single value"},
		{`{"Folder": "sockets", "Foldr": "x"}`, "appsettings.json:2: Carillon:Unix:Foldr: unknown key"},
	} {
		t.Chdir(t.TempDir())
		text := "{\"Carillon\": { \"Application\": \"a\", \"Provider\": \"unix\", \"Database\": { \"Driver\": \"sqlite\", \"Dsn\": \"a.db\" },\n\"Unix\": " + tt.section + "}}"
		if err := os.WriteFile("appsettings.json", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context(), strings.NewReader(""), io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("with %s: %v, want %s", tt.section, err, tt.want)
		}
	}
}
