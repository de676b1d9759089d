//go:build unix

// Customprovider is a provider of one's own, chosen by name from a settings file: provider.go is all of it,
// provider_test.go shows that it keeps the contract, and this file registers it.
//
// Start it in two terminals, in this folder, and type: every line appears in the other one. What carries it is
// "Provider" in appsettings.json; with "tcp" there, nothing else changes.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	_ "modernc.org/sqlite"
)

var said = carillon.Define[string](carillon.MustParseID("8b0c9a54-6a9e-4f0a-9d0e-3b8a5b2f7c10"), "said")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// own are the providers of this program by the name that selects them. Each reads its own section of the
// settings: Carillon:Unix, for this one. Of what is wrong in it the error says where it stands.
var own = map[string]appsettings.Factory{
	"unix": func(s appsettings.Section) (provider.Provider, error) {
		folder := s.Get("Folder")
		if err := s.Err(); err != nil { // values of another type, keys that were not asked for
			return nil, err
		}
		if folder == "" {
			return nil, provider.WrongSetting("unix", "Folder", "is missing: name the folder of the sockets, the same for all processes")
		}
		return newSocketBus(folder), nil
	},
}

func run(ctx context.Context, in io.Reader, out io.Writer) error {
	settings, err := appsettings.Load(appsettings.Options{Path: "appsettings.json", Providers: own})
	if err != nil {
		return err
	}
	db, err := settings.OpenDatabase()
	if err != nil {
		return err
	}
	defer db.Close()
	cfg, err := settings.Config(db)
	if err != nil {
		return err
	}
	b, err := carillon.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer b.Shutdown(context.Background())
	said.OnRaised(b, func(_ context.Context, r carillon.Raised[string]) {
		if !r.Local {
			fmt.Fprintln(out, "heard:", r.Parameter)
		}
	})
	said.OnMissed(b, func(_ context.Context, m carillon.Missed) { fmt.Fprintln(out, "missed:", m.Count) })
	b.Enable()
	fmt.Fprintf(out, "%d here, over %s\n", len(b.Members()), b.Stats().Providers[0].Name)

	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			if err := said.Raise(ctx, b, carillon.ID{}, line); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}
