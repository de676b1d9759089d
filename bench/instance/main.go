//go:build linux

// Instance is an application that does nothing but carry events with Carillon, and a child of the benchmark as the
// benchmark itself can be. It is a program of its own because the benchmark's holds the code of every opponent, which
// would count as the memory, and as the start, of an instance.
package main

import (
	"fmt"
	"os"

	"github.com/carillon-go/carillon/bench/internal/own"
)

func main() {
	status, ok := own.Child(os.Args, own.Find)
	if !ok {
		fmt.Fprintln(os.Stderr, "instance: this program is started by bench; see bench help")
		status = 2
	}
	os.Exit(status)
}
