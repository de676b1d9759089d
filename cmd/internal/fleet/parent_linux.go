package fleet

import "syscall"

// dieWithParent makes the kernel end a process whose parent is gone. The process
// notices the end of its standard input by itself; this is for one that no
// longer listens. It is a signal that can be caught, so that it may tidy up.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
