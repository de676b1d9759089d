package appsettings

import (
	"encoding/base64"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/site"
)

// A setting is one key that Carillon knows.
type setting struct {
	path string // below "Carillon", as documented
	list bool

	// set checks and stores the value of a key that is not a list, setList that of
	// one that is. An error says what is wanted. text is never empty, except for
	// settings that are texts.
	set     func(s *Settings, text string) error
	setList func(s *Settings, elems []string) (bad int, err error)

	isText bool // an empty text is a value like any other
	secret bool // no message shows a value
}

// known lists every key. It is a function, because a table would be a variable
// that everybody could change.
func known() []setting {
	return []setting{
		text("Application", func(s *Settings) *string { return &s.Application }),
		one("Site", func(s *Settings, v string) (err error) { s.Site, err = parseSite(v); return err }),
		text("Server", func(s *Settings) *string { return &s.Server }),
		text("Version", func(s *Settings) *string { return &s.Version }),
		choice("Role", func(s *Settings) *string { return &s.Role }, "both", "publish", "subscribe"),

		boolean("EnableEvents", func(s *Settings) *bool { return &s.EnableEvents }),
		boolean("EnableRemoteEvents", func(s *Settings) *bool { return &s.EnableRemoteEvents }),
		boolean("TrustSecureChannel", func(s *Settings) *bool { return &s.TrustSecureChannel }),

		list("Provider", func(s *Settings) *[]string { return &s.Providers }, anyText),
		list("Standby", func(s *Settings) *[]string { return &s.Standby }, anyText),
		list("AcceptSites", func(s *Settings) *[]string { return &s.AcceptSites }, parseSite),
		duration("MissedAfter", func(s *Settings) *time.Duration { return &s.MissedAfter }),

		text("Database:Driver", func(s *Settings) *string { return &s.Database.Driver }),
		{path: "Database:Dsn", isText: true, set: func(s *Settings, text string) error {
			s.Database.DSN = NewDSN(text)
			return nil // never: the message would show it
		}},
		text("Database:TablePrefix", func(s *Settings) *string { return &s.Database.TablePrefix }),
		hidden(list("Database:KeyEncryptionKeys", func(s *Settings) *[]site.Secret { return &s.Database.KeyEncryptionKeys }, parseSecret)),
		choice("Database:Secrets", func(s *Settings) *string { return &s.Database.Secrets }, "any", secretsEncrypted),
		number("Database:LowestGeneration", func(s *Settings) *int { return &s.Database.LowestGeneration }, 0, math.MaxInt64),

		size("Limits:HoldBytes", func(s *Settings) *int { return &s.Limits.HoldBytes }, 1, math.MaxInt32),
		size("Limits:QueueBytes", func(s *Settings) *int { return &s.Limits.QueueBytes }, 1, math.MaxInt32),
		size("Limits:UnsentBytes", func(s *Settings) *int { return &s.Limits.UnsentBytes }, 1, math.MaxInt32),
		size("Limits:MaxEventBytes", func(s *Settings) *int { return &s.Limits.MaxEventBytes }, 1, 16<<20),
		size("Limits:RingBytes", func(s *Settings) *int { return &s.Limits.RingBytes }, 1, math.MaxInt32),
		number("Limits:RingFrames", func(s *Settings) *int { return &s.Limits.RingFrames }, 1, math.MaxInt32),
		size("Limits:CacheBytes", func(s *Settings) *int { return &s.Limits.CacheBytes }, 1, math.MaxInt32),
		duration("Limits:MaxStall", func(s *Settings) *time.Duration { return &s.Limits.MaxStall }),
		duration("Limits:Lease", func(s *Settings) *time.Duration { return &s.Limits.Lease }),
		duration("Limits:Poll", func(s *Settings) *time.Duration { return &s.Limits.Poll }),

		choice("Udp:Mode", func(s *Settings) *string { return &s.UDP.Mode }, multicast, broadcast, unicast),
		one("Udp:Group", func(s *Settings, v string) (err error) { s.UDP.Group, err = parseAddr(v); return err }),
		number("Udp:Port", func(s *Settings) *int { return &s.UDP.Port }, 1, math.MaxUint16),
		text("Udp:Interface", func(s *Settings) *string { return &s.UDP.Interface }),
		number("Udp:Ttl", func(s *Settings) *int { return &s.UDP.TTL }, 1, math.MaxUint8),
		list("Udp:Peers", func(s *Settings) *[]string { return &s.UDP.Peers }, dialled),
		size("Udp:MaxFrameBytes", func(s *Settings) *int { return &s.UDP.MaxFrameBytes }, 512, 65507),

		one("Tcp:Listen", func(s *Settings, v string) (err error) { s.TCP.Listen, err = parseHostPort(v, true); return err }),
		one("Tcp:Advertise", func(s *Settings, v string) (err error) { s.TCP.Advertise, err = parseHost(v); return err }),
		list("Tcp:Endpoints", func(s *Settings) *[]string { return &s.TCP.Endpoints }, dialled),
		list("Tcp:AllowNetworks", func(s *Settings) *[]netip.Prefix { return &s.TCP.AllowNetworks }, parsePrefix),
		text("Tcp:Tls:CertFile", func(s *Settings) *string { return &s.TCP.TLS.CertFile }),
		text("Tcp:Tls:KeyFile", func(s *Settings) *string { return &s.TCP.TLS.KeyFile }),
		text("Tcp:Tls:CaFile", func(s *Settings) *string { return &s.TCP.TLS.CAFile }),
		text("Tcp:Tls:ServerName", func(s *Settings) *string { return &s.TCP.TLS.ServerName }),
		size("Tcp:MaxFrameBytes", func(s *Settings) *int { return &s.TCP.MaxFrameBytes }, 512, 1<<20),
		size("Tcp:QueueBytes", func(s *Settings) *int { return &s.TCP.QueueBytes }, 1, math.MaxInt32),
		duration("Tcp:DialTimeout", func(s *Settings) *time.Duration { return &s.TCP.DialTimeout }),
		duration("Tcp:HandshakeTimeout", func(s *Settings) *time.Duration { return &s.TCP.HandshakeTimeout }),
		duration("Tcp:PeerTimeout", func(s *Settings) *time.Duration { return &s.TCP.PeerTimeout }),
	}
}

// parseSite checks a site's name as the site database will.
func parseSite(text string) (string, error) {
	if err := site.CheckName(text); err != nil {
		return "", errors.New(strings.TrimPrefix(err.Error(), "site: "))
	}
	return text, nil
}

// parseSecret reads a key of 32 bytes. Its error does not say what text was.
func parseSecret(text string) (site.Secret, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != site.SecretLen {
		return site.Secret{}, errors.New("want 32 random bytes in base64, as from: openssl rand -base64 32")
	}
	return site.NewSecret(b)
}

func anyText(text string) (string, error) { return text, nil }
func dialled(text string) (string, error) { return parseHostPort(text, false) }

// hidden returns k with its values shown in no message.
func hidden(k setting) setting {
	k.secret = true
	return k
}

// The functions below make a setting from a path and the field it goes to.

func one(path string, set func(*Settings, string) error) setting {
	return setting{path: path, set: set}
}

func text(path string, field func(*Settings) *string) setting {
	return setting{path: path, isText: true, set: func(s *Settings, text string) error {
		*field(s) = text
		return nil
	}}
}

func choice(path string, field func(*Settings) *string, choices ...string) setting {
	return one(path, func(s *Settings, text string) (err error) {
		*field(s), err = parseChoice(text, choices)
		return err
	})
}

func boolean(path string, field func(*Settings) *bool) setting {
	return one(path, func(s *Settings, text string) (err error) {
		*field(s), err = parseBool(text)
		return err
	})
}

func number(path string, field func(*Settings) *int, low, high int) setting {
	return one(path, func(s *Settings, text string) (err error) {
		*field(s), err = parseInt(text, low, high)
		return err
	})
}

func size(path string, field func(*Settings) *int, low, high int) setting {
	return one(path, func(s *Settings, text string) (err error) {
		*field(s), err = parseBytes(text, low, high)
		return err
	})
}

func duration(path string, field func(*Settings) *time.Duration) setting {
	return one(path, func(s *Settings, text string) (err error) {
		*field(s), err = parseDuration(text)
		return err
	})
}

func list[T any](path string, field func(*Settings) *[]T, parse func(string) (T, error)) setting {
	return setting{path: path, list: true, setList: func(s *Settings, elems []string) (int, error) {
		values := make([]T, 0, len(elems)) // not nil: an empty list was written
		for i, elem := range elems {
			v, err := parse(elem)
			if err != nil {
				return i, err
			}
			values = append(values, v)
		}
		*field(s) = values
		return 0, nil
	}}
}

// apply checks everything that the merged entries say below root, which is
// folded, and stores it in s. settings are the keys there; custom are the
// sections that belong to the application's providers.
func apply(s *Settings, settings []setting, root string, es entries, custom []string, ps *problems) {
	byPath := make(map[string]setting, len(settings))
	isSection := map[string]bool{root: true}
	for _, k := range settings {
		path := ownSection + ":" + fold(k.path)
		byPath[path] = k
		for up, _ := split(path); up != ""; up, _ = split(up) {
			isSection[up] = true
		}
	}
	done := map[string]bool{} // lists of which only elements are written, and custom sections
	for _, path := range es.sorted() {
		e := es[path]
		if inCustom(path, custom) {
			// The provider's factory judges its own section, by Section.Err. It would not
			// hear of one that is a text or a list: there is no key in it to ask for.
			full := strings.Join(strings.SplitN(e.path, ":", 3)[:2], ":")
			section := fold(full)
			if (path == section && e.kind != emptyTable || e.list == section) && !done[section] {
				done[section] = true
				ps.add(e.at, full, "want a section { … } with the keys of this provider")
			}
			continue
		}
		parent, _ := split(path)
		k, ok := byPath[path]
		above, isKey := byPath[parent]
		switch {
		case ok:
			set(s, k, es, path, ps)
		case isKey && above.list && isElement(path) && e.kind == scalar:
			if _, whole := es[parent]; !whole && !done[parent] {
				done[parent] = true
				set(s, above, es, parent, ps)
			}
		case isSection[path]:
			if e.kind != emptyTable {
				ps.add(e.at, e.path, "want a section { … } with keys: %s", strings.Join(keysBelow(settings, path, custom), ", "))
			}
		default:
			unknown(e, path, settings, byPath, isSection, custom, ps)
		}
	}
}

func canonical(k setting) string { return "Carillon:" + k.path }

// set stores the value of one setting.
func set(s *Settings, k setting, es entries, path string, ps *problems) {
	e := es[path]
	if k.list {
		if e.kind == emptyTable {
			ps.add(e.at, e.path, "want a text or a list of texts")
			return
		}
		elems := es.elements(path)
		texts := make([]string, len(elems))
		for i, x := range elems {
			texts[i] = x.text
		}
		if bad, err := k.setList(s, texts); err != nil {
			ps.add(elems[bad].at, elems[bad].path, "%s: %v", k.shown(texts[bad]), err)
		}
		return
	}
	switch {
	case e.kind != scalar:
		ps.add(e.at, e.path, "want a single value")
	case e.text == "" && !k.isText:
		// An empty variable in the environment is how many tools say "not set".
	default:
		if err := k.set(s, e.text); err != nil {
			ps.add(e.at, e.path, "%s: %v", k.shown(e.text), err)
		}
	}
}

// shown returns a value as messages show it.
func (k setting) shown(text string) string {
	if k.secret {
		return "its value (not shown)"
	}
	return strconv.Quote(clip(text))
}

// unknown reports a key that is none of ours, with what was meant, perhaps.
func unknown(e entry, path string, settings []setting, byPath map[string]setting, isSection map[string]bool, custom []string, ps *problems) {
	// What nobody knows is one problem, not one for each value in it: go up to the
	// first key whose section is known.
	full := e.path
	for parent, _ := split(path); !isSection[parent]; parent, _ = split(path) {
		path = parent
		full, _ = split(full)
	}
	if slices.ContainsFunc(ps.list, func(p Problem) bool { return p.Key == full && p.Source == e.at.source }) {
		return
	}
	switch k, ok := byPath[path]; {
	case ok && k.list:
		ps.add(e.at, full, "want a text or a list of texts")
		return
	case ok:
		ps.add(e.at, full, "want a single value")
		return
	}
	parent, last := split(path)
	keys := keysBelow(settings, parent, custom)
	if near := nearest(last, keys); near != "" {
		ps.add(e.at, full, "unknown key; did you mean %q? keys here: %s", near, strings.Join(keys, ", "))
		return
	}
	for _, k := range settings { // the right name in the wrong section
		if _, name := split(k.path); fold(name) == last {
			ps.add(e.at, full, "unknown key; did you mean %q? keys here: %s", canonical(k), strings.Join(keys, ", "))
			return
		}
	}
	ps.add(e.at, full, "unknown key; keys here: %s", strings.Join(keys, ", "))
}

// keysBelow returns the names that may stand directly in a section, in the order
// of the table.
func keysBelow(settings []setting, section string, custom []string) []string {
	var keys []string
	prefix := section + ":"
	for _, k := range settings {
		rest, ok := strings.CutPrefix(fold(canonical(k)), prefix)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(canonical(k)[len(prefix):], ":")
		if rest != "" && !slices.Contains(keys, name) {
			keys = append(keys, name)
		}
	}
	if section == ownSection {
		keys = append(keys, custom...)
	}
	return keys
}

func inCustom(path string, custom []string) bool {
	return slices.ContainsFunc(custom, func(name string) bool { return within(path, ownSection+":"+fold(name)) })
}

// clip shortens a value for a message.
func clip(text string) string {
	const most = 80
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
