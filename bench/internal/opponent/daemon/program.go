//go:build linux

package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"

	"github.com/carillon-go/carillon/bench/internal/system"
)

// Program returns the last program that one of patterns names. If there is none, the error wraps
// system.ErrMissing and says which Debian package has it.
func Program(debianPackage string, patterns ...string) (string, error) {
	for _, p := range patterns {
		if found, _ := filepath.Glob(p); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("%s is %w; install the Debian package %s", filepath.Base(patterns[0]), system.ErrMissing, debianPackage)
}

var dotted = regexp.MustCompile(`\d+(\.\d+)+`)

// Version returns the first number with dots in what a program prints about itself.
func Version(program string, args ...string) (string, error) {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", program, err)
	}
	version := dotted.FindString(string(out))
	if version == "" {
		return "", fmt.Errorf("%s names no version: %q", program, out)
	}
	return version, nil
}

// A Folder is where a server keeps its files, and the user who runs it: the product's own, because some
// servers refuse to run as root, or this process's user if that is not root.
type Folder struct {
	Path       string
	credential *syscall.Credential
}

// NewFolder makes a folder in parent. As root it gives the folder to the named user, to whom parent must
// be open: it may belong to root alone, the folders above it not.
func NewFolder(parent, name, userName string) (*Folder, error) {
	f := &Folder{Path: filepath.Join(parent, name)}
	if err := os.Mkdir(f.Path, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() != 0 {
		return f, nil
	}
	u, err := user.Lookup(userName)
	if err != nil {
		return nil, fmt.Errorf("%w; the server's Debian package makes this user", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	f.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := os.Chown(f.Path, int(uid), int(gid)); err != nil {
		return nil, err
	}
	info, err := os.Stat(parent)
	if err != nil {
		return nil, err
	}
	return f, os.Chmod(parent, info.Mode().Perm()|0o011) // to pass through, not to list
}

// Command returns what runs a program in the folder as its user.
func (f *Folder) Command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = f.Path
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: f.credential}
	return cmd
}
