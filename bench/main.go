//go:build linux

// Bench measures Carillon beside what people would pick instead, and beside what sockets alone can do: processes
// on the loopback interface, one that publishes and several that subscribe, every event delivered to all of them.
//
//	bench list              what can be measured
//	bench one tcpbus        one measurement of one system
//	bench quick             every goal, in less than three minutes
//	bench local, start, idle, growth
//	                        a part of that
//	bench run               everything, into docs/performance.md
//	bench guard             whether something has collapsed, in about a minute
//
// The exit status is 0 if all was measured, 1 if a system lost or doubled events or a guard's bound was not
// kept, 2 if something could not be done at all.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/carillon-go/carillon/bench/internal/opponent/kafka/kafkaserver"
	"github.com/carillon-go/carillon/bench/internal/opponent/nats/natsserver"
	"github.com/carillon-go/carillon/bench/internal/own"
)

// commands are those of the program.
type commands struct {
	List   listCommand   `cmd:"" help:"Names what can be measured."`
	One    oneCommand    `cmd:"" help:"Measures one system once, and prints it."`
	Quick  quickCommand  `cmd:"" help:"Measures every goal in less than three minutes, and prints a line for each."`
	Local  localCommand  `cmd:"" help:"Measures a raise that stays in its process."`
	Start  startCommand  `cmd:"" help:"Measures the start of a process, part by part."`
	Idle   idleCommand   `cmd:"" help:"Measures instances that do nothing."`
	Growth growthCommand `cmd:"" help:"Measures what an event costs its sender as the site grows."`
	Run    runCommand    `cmd:"" help:"Measures everything, which takes most of an hour, and writes tables and plots into the documentation."`
	Guard  guardCommand  `cmd:"" help:"Measures what needs no server but NATS in about a minute; fails if a goal is below half of what must hold."`
}

func main() {
	if status, ok := own.Child(os.Args, find); ok {
		os.Exit(status)
	}
	natsserver.RunIfAsked()
	kafkaserver.RunIfAsked()
	os.Exit(run(os.Args[1:]))
}

// errShort says that a measurement was made, and is not good enough.
var errShort = errors.New("short of what must hold")

func run(args []string) int {
	var c commands
	parser, err := kong.New(&c, kong.Name("bench"), kong.Description("Measures Carillon beside other ways to carry events."), kong.UsageOnError())
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	switch err := parsed.Run(); {
	case err == nil:
		return 0
	case errors.Is(err, errShort):
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
}
