package appsettings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFileBytes bounds a configuration file. The largest that people keep are a
// tenth of it.
const maxFileBytes = 1 << 20

// providerList is where every source's choice of provider ends up.
const providerList = ownSection + ":provider"

// A reader collects what all sources say.
type reader struct {
	dir     string
	names   resolver
	ps      problems
	notices []Notice
}

// all reads every source and merges them. overridden are the older files'
// choices of a provider, whether or not one of them is used in the end.
func (r *reader) all(path string, required bool, environ []string) (es entries, overridden []entry) {
	es = entries{}
	if file := r.find("web.config"); file != "" {
		if data, ok := r.read(file, false); ok {
			found := readWebConfig(file, data, readFile, &r.ps)
			es = found.flatten(r.names, &r.notices, &r.ps)
			r.notices = append(r.notices, found.notices...)
			if e, ok := es[providerList+":0"]; ok {
				overridden = append(overridden, e)
			}
		}
	}

	var own []entries
	legacy := entries{}
	add := func(o, l entries) {
		own = append(own, o)
		legacy.merge(l)
	}
	if data, ok := r.read(path, required); ok {
		add(readJSON(path, data, &r.ps))
	}
	if file := r.variant(path, environ); file != "" {
		if data, ok := r.read(file, false); ok {
			add(readJSON(file, data, &r.ps))
		}
	}
	add(readEnviron(environ, &r.ps))

	if e, ok := r.olderKey(es, legacy); ok {
		overridden = append(overridden, e)
	}
	for _, o := range own {
		es.merge(o)
	}
	return es, overridden
}

// olderKey lays the provider that the older key names over es, under our own
// key.
func (r *reader) olderKey(es, legacy entries) (e entry, ok bool) {
	e, ok = legacy[legacyProvider]
	switch {
	case !ok:
		return e, false
	case e.kind != scalar:
		r.ps.add(e.at, e.path, "want the name of one provider, or the type of one")
		return e, false
	case strings.TrimSpace(e.text) == "":
		return e, false
	}
	e.list = providerList
	es.merge(entries{providerList + ":0": e})
	return e, true
}

// variant returns the settings file for the environment, or "" if there is none.
func (r *reader) variant(path string, environ []string) string {
	name, variable := environment(environ)
	if strings.ContainsAny(name, `/\:`) || name == ".." {
		r.ps.add(origin{source: "environment variable " + variable}, "", "%q: want the name of an environment, such as Production", clip(name))
		return ""
	}
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	return r.find(strings.TrimSuffix(base, ext) + "." + name + ext)
}

// find returns the path of a file of that name, in any case if there is none in
// the very same: file systems on which .NET applications grew up do not tell
// the two apart.
func (r *reader) find(name string) string {
	exact := filepath.Join(r.dir, name)
	if _, err := os.Lstat(exact); err == nil {
		return exact
	}
	files, err := os.ReadDir(r.dir)
	if err != nil {
		return "" // reported for the file that is required, if one is
	}
	for _, f := range files {
		if strings.EqualFold(f.Name(), name) {
			return filepath.Join(r.dir, f.Name())
		}
	}
	return ""
}

// read returns the contents of a file, and false if there is none, which is a
// problem if it is required.
func (r *reader) read(path string, required bool) ([]byte, bool) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil, false
	}
	if err != nil {
		r.ps.add(origin{source: path}, "", "%v", err)
		return nil, false
	}
	r.ps.source(path)
	return data, true
}

// readFile reads a file of ordinary kind and size. The error does not repeat
// the path.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, bare(err)
	}
	if !info.Mode().IsRegular() { // a pipe would block for ever
		return nil, errors.New("is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, bare(err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("is larger than %d bytes", maxFileBytes)
	}
	for _, mark := range []string{"\xff\xfe", "\xfe\xff"} {
		if strings.HasPrefix(string(data[:min(len(data), 2)]), mark) {
			return nil, errors.New("is UTF-16; save it as UTF-8")
		}
	}
	return data, nil
}

// bare takes the path out of a file system's error.
func bare(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("cannot be read: %w", pathErr.Err)
	}
	return err
}
