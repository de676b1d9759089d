//go:build !linux && !windows

package fleet

import "syscall"

// attributes put a process into a group of its own, which keeps Ctrl-C at the
// terminal from it, for the parent to decide. The end of its standard input tells
// it that the parent is gone.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
