package main

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// invocation returns what a person types to run this program again.
func invocation() string {
	self, err := os.Executable()
	if err != nil {
		return "carillon"
	}
	if byGoRun(self) {
		for _, dir := range []string{"cmd/carillon", "carillon"} {
			if _, err := os.Stat(filepath.Join(dir, "invocation.go")); err == nil {
				return "go run ./" + dir
			}
		}
		if _, err := os.Stat("invocation.go"); err == nil {
			return "go run ."
		}
		return "go run github.com/carillon-go/carillon/cmd/carillon"
	}
	if found, err := exec.LookPath("carillon"); err == nil && same(found, self) {
		return "carillon"
	}
	if strings.ContainsAny(os.Args[0], `/\`) {
		return os.Args[0] // as it was typed
	}
	return "carillon"
}

// command returns what a person types to run another command on the same site: the flags that said which it is are said again.
// An address of the database that may hold a password is left out, with a sign that it has to be filled in.
func (f *siteFlags) command(words string) string {
	line := invocation() + " " + words
	if f.Config != "" {
		line += " --config " + quoted(f.Config)
	}
	switch {
	case f.Database == "":
	case mayHoldSecret(f.Database):
		line += " --database …"
	default:
		line += " --database " + quoted(f.Database)
	}
	if f.Site != "" {
		line += " --site " + quoted(f.Site)
	}
	return line
}

// mayHoldSecret reports whether the value of --database could have a password in it. Where that cannot be told it reports true.
func mayHoldSecret(database string) bool {
	name, dsn, _ := strings.Cut(database, ":")
	for _, word := range []string{"pass", "pwd", "secret", "token"} {
		if drivers[strings.ToLower(name)] != "sqlite" && strings.Contains(strings.ToLower(dsn), word) {
			return true
		}
	}
	switch drivers[strings.ToLower(name)] {
	case "sqlite":
		return strings.Contains(dsn, "?") // a path has none
	case "mysql":
		cfg, err := mysql.ParseDSN(dsn)
		return err != nil || cfg.Passwd != ""
	case "pgx":
		if !strings.Contains(dsn, "://") {
			return false // words like host=a, of which none is password
		}
		u, err := url.Parse(dsn)
		if err != nil {
			return true
		}
		_, has := u.User.Password()
		return has || strings.Contains(u.RawQuery, "%") // a name could be written in another way
	}
	return true
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// quoted returns word as a shell takes it for one.
func quoted(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// byGoRun reports whether the go command made the executable for one run, so
// that it is gone afterwards.
func byGoRun(executable string) bool {
	for dir := filepath.Dir(executable); ; dir = filepath.Dir(dir) {
		if strings.HasPrefix(filepath.Base(dir), "go-build") {
			return true
		}
		if dir == filepath.Dir(dir) {
			return false
		}
	}
}

// same reports whether two paths lead to one file.
func same(a, b string) bool {
	fa, err := os.Stat(a)
	if err != nil {
		return false
	}
	fb, err := os.Stat(b)
	return err == nil && os.SameFile(fa, fb)
}
