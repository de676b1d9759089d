// Package web holds what the pages of the instances and the dashboard have in
// common: who may talk to them, and how they look.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"
)

//go:embed static
var shared embed.FS

// Guard lets through what a person at this machine may have asked for. Requests
// to another host name are refused, so that no page on the internet can point
// its own name at this machine and read the answer (DNS rebinding). Requests
// that change something are refused when the browser says that another site
// sent them. csp is the content security policy of every answer.
func Guard(next http.Handler, csp string) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "This request comes from another site. Open the form on this address and send it from there.", http.StatusForbidden)
	}))
	inner := origin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		if !IsLoopback(r.Host) {
			http.Error(w, "This server answers to the name localhost and to loopback addresses only.", http.StatusMisdirectedRequest)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

// IsLoopback reports whether a Host header, with or without a port, names this
// machine.
func IsLoopback(hostport string) bool {
	host := HostName(hostport)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// HostName returns a Host header without port and brackets.
func HostName(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

// Assets serves the files of one or several folders named "static", and names
// them so that browsers may keep them for ever.
type Assets struct {
	files map[string][]byte // by name without folder
	sums  map[string]string
}

// NewAssets reads all files in the folder "static" of fsys, and the shared
// ones. The file systems are compiled in, so it panics when they are not there.
func NewAssets(fsys fs.FS) *Assets {
	a := &Assets{files: map[string][]byte{}, sums: map[string]string{}}
	for _, from := range []fs.FS{shared, fsys} {
		entries, err := fs.ReadDir(from, "static")
		if err != nil {
			panic(err)
		}
		for _, e := range entries {
			b, err := fs.ReadFile(from, path.Join("static", e.Name()))
			if err != nil {
				panic(err)
			}
			sum := sha256.Sum256(b)
			a.files[e.Name()] = b
			a.sums[e.Name()] = hex.EncodeToString(sum[:6])
		}
	}
	return a
}

// URL returns the address of a file; it changes when the file does.
func (a *Assets) URL(name string) (string, error) {
	sum, ok := a.sums[name]
	if !ok {
		return "", fmt.Errorf("no asset %q", name)
	}
	return "/static/" + name + "?v=" + sum, nil
}

// ServeHTTP answers GET /static/{file}.
func (a *Assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	b, ok := a.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
}

// Render executes a template into memory, so that an error never leaves half a
// page, and sends it. Pages are never kept by browsers: what a cache does here
// should be seen here.
func Render(w http.ResponseWriter, t *template.Template, name string, status int, data any) error {
	var buf bytes.Buffer
	if err := t.ExecuteTemplate(&buf, name, data); err != nil {
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return fmt.Errorf("render %q: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err := buf.WriteTo(w)
	return err
}
