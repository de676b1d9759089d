// Package toy is what the test of mutants mutates.
package toy

// Add returns the sum.
func Add(a, b int) int {
	return a + b
}

// Name returns a name, which no test looks at.
func Name() string {
	return "toy"
}

// Wait returns at once.
func Wait() {
	ready := make(chan bool, 1)
	ready <- true
	<-ready
}
