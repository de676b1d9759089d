package appsettings

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/provider/udpbus"
	"github.com/carillon-go/carillon/site"
)

// The modes of the provider "udp".
const (
	multicast = string(udpbus.Multicast)
	broadcast = string(udpbus.Broadcast)
	unicast   = string(udpbus.Unicast)
)

// settle turns what was written about providers into their names here, and
// remarks on older choices that do not count.
func (r *reader) settle(s *Settings, es entries, overridden []entry) {
	r.settleProviders(s, es, overridden)
	s.Standby = nil
	for _, e := range es.elements(ownSection + ":standby") {
		name, _, known, err := r.names.resolve(e.text)
		switch {
		case err != nil && !(known && s.Local()):
			r.ps.add(e.at, e.path, "%v", err)
		case slices.Contains(s.Providers, name):
			r.ps.add(e.at, e.path, "provider %q is in use already: Carillon:Provider names it", name)
		case slices.Contains(s.Standby, name):
			r.ps.add(e.at, e.path, "provider %q is named twice", name)
		default:
			s.Standby = append(s.Standby, name)
		}
	}
}

func (r *reader) settleProviders(s *Settings, es entries, overridden []entry) {
	written := es.elements(providerList)
	if whole, ok := es[providerList]; ok && whole.kind == scalar {
		// The comma in "Type, Assembly" is none between two names.
		if _, as, _, _ := r.names.resolve(whole.text); as.provider != "" {
			written = []entry{whole}
		}
	}
	if len(written) == 0 {
		if e, ok := es[providerList]; ok && e.kind == emptyList {
			r.ps.add(e.at, e.path, "no provider; to keep events in this process, set Carillon:EnableRemoteEvents to false")
		}
		s.Providers = defaults().Providers
		return
	}
	s.Providers = nil
	for _, e := range written {
		name, as, known, err := r.names.resolve(e.text)
		if err != nil && !(known && s.Local()) { // a provider that is not used need not be there
			r.ps.add(e.at, e.path, "%v", err)
			continue
		}
		if slices.Contains(s.Providers, name) {
			r.ps.add(e.at, e.path, "provider %q is named twice", name)
			continue
		}
		s.Providers = append(s.Providers, name)
		if as.notice != "" {
			r.notices = append(r.notices, Notice{e.at.source, e.at.line, e.path, "becomes the provider \"" + name + "\"; " + as.notice})
		}
		if _, ok := es[modeKey]; !ok && as.udpMode != "" {
			s.UDP.Mode = as.udpMode
		}
	}
	for _, o := range overridden {
		if slices.ContainsFunc(written, func(e entry) bool { return e.at == o.at && e.path == o.path }) {
			continue
		}
		if name, _, _, err := r.names.resolve(o.text); err != nil || !slices.Contains(s.Providers, name) {
			r.notices = append(r.notices, Notice{o.at.source, o.at.line, o.path, "not used; " + written[0].path + " in " + written[0].at.source + " comes later and wins"})
		}
	}
}

const (
	udpSection = ownSection + ":udp"
	tcpSection = ownSection + ":tcp"
	modeKey    = udpSection + ":mode"
)

// check looks at settings that are right alone and wrong together.
func check(s *Settings, es entries, ps *problems) {
	if s.Local() {
		return
	}
	// report names the key that is written, or the one that is missing.
	report := func(path, missing, format string, args ...any) {
		for _, p := range []string{path, path + ":0"} {
			if e, ok := es[p]; ok {
				ps.add(e.at, e.path, format, args...)
				return
			}
		}
		ps.add(origin{}, missing, format, args...)
	}
	if s.Site == "" && s.Application != "" {
		if _, err := parseSite(s.Application); err != nil {
			report(ownSection+":application", "", "names the site as well, since Carillon:Site is not set: %v", err)
		}
	}
	if limits := s.Limits; limits.Lease > 0 {
		if err := site.CheckLease(limits.Lease); err != nil {
			report(ownSection+":limits:lease", "", "%s", strings.TrimPrefix(err.Error(), "site: "))
		}
	}
	if limits := s.Limits; limits.Poll > cmp.Or(limits.Lease, 30*time.Second)/3 {
		report(ownSection+":limits:poll", "", "is more than a third of Carillon:Limits:Lease, which is %v", cmp.Or(limits.Lease, 30*time.Second))
	}
	named := slices.Concat(s.Providers, s.Standby)
	if slices.Contains(named, udpName) {
		switch {
		case s.UDP.Mode == unicast && len(s.UDP.Peers) == 0:
			report(modeKey, "Carillon:Udp:Peers", `mode "unicast" needs Carillon:Udp:Peers, the addresses of the other instances`)
		case s.UDP.Mode != unicast && len(s.UDP.Peers) > 0:
			report(udpSection+":peers", "", `is used with Carillon:Udp:Mode "unicast" only; the mode is %q`, s.UDP.Mode)
		}
		switch group := s.UDP.Group; {
		case group.IsValid() && !group.IsMulticast():
			report(udpSection+":group", "", `%q: is not a multicast address; want one of 224.0.0.0/4 or ff00::/8, such as %q`, group, udpbus.DefaultGroup())
		case group.IsValid() && s.UDP.Mode != multicast:
			report(udpSection+":group", "", `is used with Carillon:Udp:Mode "multicast" only; the mode is %q`, s.UDP.Mode)
		}
	}
	if slices.Contains(named, tcpName) {
		files := s.TCP.TLS
		for _, f := range []struct{ path, key, value, why string }{
			{":tls:certfile", "CertFile", files.CertFile, "the certificate that this instance shows"},
			{":tls:keyfile", "KeyFile", files.KeyFile, "the certificate's private key"},
			{":tls:cafile", "CaFile", files.CAFile, "the authority that signed the other instances' certificates"},
		} {
			if f.value == "" && files != (TLS{}) {
				report(tcpSection+f.path, "Carillon:Tcp:Tls:"+f.key, "is needed for TLS: %s", f.why)
			}
		}
	}
}
