package fleet

import "syscall"

// attributes make the kernel end a process whose parent is gone. The process
// notices the end of its standard input by itself; this is for one that does
// not get to read it. It is a signal that can be caught, so that the process may
// tidy up.
//
// A process group of its own keeps Ctrl-C at the terminal from the instances,
// for the parent to decide. And when the parent of a stopped process ends, the
// group is orphaned, and the kernel lets the process go on to its end.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
