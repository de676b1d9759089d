//go:build !linux

package fleet

import "syscall"

// dieWithParent does nothing here: the end of its standard input tells a process
// that its parent is gone.
func dieWithParent() *syscall.SysProcAttr { return nil }
