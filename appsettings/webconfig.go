package appsettings

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// An element is what is kept of an element of web.config.
type element struct {
	name  string // folded
	attrs []xml.Attr
	at    origin
}

// attr returns the value of an attribute and whether it is there.
func (e element) attr(name string) (string, bool) {
	for _, a := range e.attrs {
		if strings.EqualFold(a.Name.Local, name) {
			return a.Value, true
		}
	}
	return "", false
}

// classic is what a web.config says about events.
type classic struct {
	switches map[string][]entry // by the folded name of our key; several sites may each have one
	provider element            // <event defaultProvider>; its name is empty when there is none
	adds     []element          // <providers><add>
	notices  []Notice
}

// A webConfig reads web.config and the files that its sections may be kept in.
type webConfig struct {
	dir     string
	read    func(path string) ([]byte, error)
	ps      *problems
	found   classic
	entered []string // files that are being read, so that none includes itself
}

// readWebConfig returns what the file says about events.
func readWebConfig(path string, data []byte, read func(string) ([]byte, error), ps *problems) classic {
	w := webConfig{dir: filepath.Dir(path), read: read, ps: ps, found: classic{switches: map[string][]entry{}}}
	w.file(path, data)
	return w.found
}

// file walks one file: web.config itself, or one that holds a section of it.
func (w *webConfig) file(path string, data []byte) {
	w.entered = append(w.entered, path)
	dec := xml.NewDecoder(bytes.NewReader(trimBOM(data)))
	dec.CharsetReader = func(label string, r io.Reader) (io.Reader, error) {
		enc, err := htmlindex.Get(label)
		if err != nil {
			return nil, fmt.Errorf("encoding %q is not known; save the file as UTF-8", label)
		}
		return enc.NewDecoder().Reader(r), nil
	}
	var stack []string
	for {
		line, _ := dec.InputPos() // the space before a tag is a token of its own, so here the tag begins
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			var syntax *xml.SyntaxError
			if errors.As(err, &syntax) {
				w.ps.add(origin{path, syntax.Line}, "", "not valid XML: %s", syntax.Msg)
			} else {
				w.ps.add(origin{path, line}, "", "not valid XML: %v", err)
			}
			return
		}
		switch t := token.(type) {
		case xml.StartElement:
			if len(stack) >= maxDepth {
				w.ps.add(origin{path, line}, "", "elements nest deeper than %d levels", maxDepth)
				return
			}
			stack = append(stack, fold(t.Name.Local))
			w.element(element{name: fold(t.Name.Local), attrs: t.Attr, at: origin{path, line}}, stack)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		}
	}
}

// element looks at one element. stack is its path, itself included.
func (w *webConfig) element(e element, stack []string) {
	// A section may stand in a <location>, which concerns parts of a site's address
	// space and not events.
	stack = slices.DeleteFunc(slices.Clone(stack), func(name string) bool { return name == "location" })
	path := strings.TrimPrefix(strings.Join(stack, "/"), "configuration/")
	switch path {
	case "episerver", "episerver.framework", "system.servicemodel":
		if source, ok := e.attr("configSource"); ok && source != "" {
			w.include(e, source)
		}
	case "episerver/applicationsettings", "episerver/sites/site/sitesettings":
		tag := map[string]string{"applicationsettings": "applicationSettings", "sitesettings": "siteSettings"}[e.name]
		for _, name := range []string{"enableEvents", "enableRemoteEvents"} {
			if value, ok := e.attr(name); ok {
				w.found.switches[fold(name)] = append(w.found.switches[fold(name)],
					entry{path: fmt.Sprintf("<%s %s>", tag, name), kind: scalar, text: value, at: e.at})
			}
		}
	case "episerver.framework/event":
		w.found.provider = e
	case "episerver.framework/event/providers/add":
		w.found.adds = append(w.found.adds, e)
	case "episerver.framework/event/providers/clear":
		w.found.adds = nil
	case "system.servicemodel/services/service/endpoint", "system.servicemodel/client/endpoint":
		w.endpoint(e)
	}
}

// endpoint remarks on an endpoint of the old transport for events, and leaves
// those of other services alone.
func (w *webConfig) endpoint(e element) {
	contract, _ := e.attr("contract")
	name, _ := e.attr("name")
	if !strings.HasSuffix(fold(contract), ".ieventreplication") && !strings.HasPrefix(fold(name), "remoteeventservice") {
		return
	}
	address, _ := e.attr("address")
	hint := ""
	if strings.HasPrefix(fold(address), "soap.udp:") {
		hint = `; to stay with UDP, set Carillon:Provider to "udp"`
	}
	w.found.notices = append(w.found.notices, Notice{
		Source: e.at.source, Line: e.at.line, Key: fmt.Sprintf("<endpoint name=%q address=%q>", clip(name), clip(address)),
		Text: "not used; members are found through the site database instead" + hint,
	})
}

// include reads a section that is kept in a file of its own.
func (w *webConfig) include(e element, source string) {
	rel := filepath.FromSlash(strings.ReplaceAll(source, `\`, "/"))
	if !filepath.IsLocal(rel) {
		w.ps.add(e.at, "<"+e.name+" configSource>", "%q: want a file in the folder of web.config or below", clip(source))
		return
	}
	path := filepath.Join(w.dir, rel)
	if slices.Contains(w.entered, path) {
		w.ps.add(e.at, "<"+e.name+" configSource>", "%q: includes itself", clip(source))
		return
	}
	data, err := w.read(path)
	if err != nil {
		w.ps.add(e.at, "<"+e.name+" configSource>", "%v", err)
		return
	}
	w.file(path, data)
}

// flatten turns what was found into entries under our own keys, and the
// attributes of the chosen provider into those of its section.
func (c classic) flatten(r resolver, notices *[]Notice, ps *problems) entries {
	es := entries{}
	for _, name := range []string{"EnableEvents", "EnableRemoteEvents"} {
		all := c.switches[fold(name)]
		if len(all) == 0 {
			continue
		}
		for _, other := range all[1:] {
			if !strings.EqualFold(other.text, all[0].text) {
				ps.add(other.at, other.path, "is %q here and %q in line %d; sites of one process cannot differ, set Carillon:%s in appsettings.json and remove both", clip(other.text), clip(all[0].text), all[0].at.line, name)
			}
		}
		es[ownSection+":"+fold(name)] = all[0]
	}
	chosen, ok := c.provider.attr("defaultProvider")
	if !ok || chosen == "" {
		return es // the classic default, for which there is no entry either
	}
	const key = "<event defaultProvider>"
	names := make([]string, 0, len(c.adds))
	for _, add := range c.adds {
		name, _ := add.attr("name")
		names = append(names, name)
	}
	i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, chosen) })
	if i < 0 {
		ps.add(c.provider.at, key, "%q is not among the <providers>; %s", clip(chosen), choose(chosen, names))
		return es
	}
	add := c.adds[i]
	word, _ := add.attr("type")
	if _, ok := r.custom[fold(chosen)]; ok || word == "" {
		word = chosen // the application says itself what goes by this name
	}
	es[providerList+":0"] = entry{path: fmt.Sprintf("<add name=%q>", clip(chosen)), kind: scalar, text: word, at: add.at, list: providerList}

	name, _, _, err := r.resolve(word)
	if err != nil {
		return es // reported when the choice is made, if it is
	}
	for _, a := range add.attrs {
		attr := a.Name.Local
		if fold(attr) == "name" || fold(attr) == "type" || attr == "" {
			continue
		}
		if _, ok := r.custom[name]; !ok {
			*notices = append(*notices, Notice{add.at.source, add.at.line, fmt.Sprintf("<add name=%q %s>", clip(chosen), clip(attr)),
				fmt.Sprintf("not used; the provider %q is configured in Carillon:%s", name, sectionName(name))})
			continue
		}
		path := "Carillon:" + r.custom[name] + ":" + attr
		es[fold(path)] = entry{path: path, kind: scalar, text: a.Value, at: add.at}
	}
	return es
}

// sectionName returns the section of a built-in provider as documented.
func sectionName(provider string) string { return strings.ToUpper(provider[:1]) + provider[1:] }
