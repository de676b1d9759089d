// Quickstart keeps a cache of one value in step between processes. Start it in
// two terminals, in the same folder, and type: every line becomes the value, and
// every process shows it.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/site/sqlsite"
	_ "modernc.org/sqlite"
)

// GreetingChanged is what travels. It says that something changed; the value itself stays in the database.
type GreetingChanged struct{ By int }

var greetingChanged = carillon.Define[GreetingChanged](
	carillon.MustParseID("0d7f4a52-86a4-4b0f-9a53-7a2b3e0c9f11"), "greeting changed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	// The database that the application has anyway. Several processes write to it, so each waits for the others.
	db, err := sql.Open("sqlite", "file:quickstart.db?_pragma=busy_timeout(5000)")
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS greeting (id INTEGER PRIMARY KEY, text TEXT)`); err != nil {
		return err
	}
	rows, err := sqlsite.New(db)
	if err != nil {
		return err
	}
	defer rows.Close()
	tcp, err := tcpbus.New(tcpbus.Config{}) // no endpoints: instances find each other in the database
	if err != nil {
		return err
	}

	b, err := carillon.Open(ctx, carillon.Config{
		Application: "quickstart",
		Database:    rows,
		Providers:   []provider.Provider{tcp},
		Logger:      slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	defer b.Shutdown(context.Background())

	var cached atomic.Pointer[string]
	load := func() {
		var text string
		if err := db.QueryRow(`SELECT text FROM greeting WHERE id = 1`).Scan(&text); err != nil {
			text = "(nothing yet)"
		}
		cached.Store(&text)
	}
	greetingChanged.OnRaised(b, func(_ context.Context, r carillon.Raised[GreetingChanged]) {
		load()
		fmt.Printf("process %d changed it to: %s\n", r.Parameter.By, *cached.Load())
	})
	greetingChanged.OnMissed(b, func(context.Context, carillon.Missed) { load() })
	load()
	b.Enable()
	fmt.Printf("process %d of %d. The greeting is: %s\nType a new one.\n", os.Getpid(), len(b.Members()), *cached.Load())

	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			if _, err := db.ExecContext(ctx, `REPLACE INTO greeting (id, text) VALUES (1, ?)`, line); err != nil {
				return err
			}
			if err := greetingChanged.Raise(ctx, b, carillon.ID{}, GreetingChanged{By: os.Getpid()}); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}
