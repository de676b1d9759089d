//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package main

// holdFolder does nothing: without locks that end with their process nobody can
// tell whether a folder is in use, so none is swept.
func holdFolder(string) (release func(), err error) { return func() {}, nil }

// sweepFolders does nothing, see holdFolder.
func sweepFolders(string) {}
