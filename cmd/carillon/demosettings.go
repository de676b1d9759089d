package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/cmd/internal/transports"
	"github.com/carillon-go/carillon/examples/cms"
	"github.com/carillon-go/carillon/site"
)

// demoSettings reads what the instances of the demonstration make their transports by: provider, which is in use, those of
// Carillon:Standby, and the sections of all these. They stay on this machine; udpPort is where UDP is heard.
func demoSettings(provider string, udpPort int) (*appsettings.Settings, error) {
	environ := slices.DeleteFunc(os.Environ(), func(kv string) bool { return within(settingPath(kv), "provider") })
	environ = append(environ, "Carillon__Provider="+provider)
	s, err := appsettings.Load(appsettings.Options{Environ: environ, Providers: transports.Factories()})
	if err != nil {
		return nil, err
	}
	// What a file here says is for another program, which has processes elsewhere.
	s.Site, s.Application, s.Role = cms.SiteName, cms.SiteName, ""
	s.EnableEvents, s.EnableRemoteEvents = true, true
	s.TCP.Listen, s.TCP.Advertise, s.TCP.Endpoints = "127.0.0.1:0", "", nil
	s.UDP.Mode, s.UDP.Port, s.UDP.Interface, s.UDP.Peers = "multicast", udpPort, "127.0.0.1", nil
	return s, nil
}

// chosen are the settings of transports that demoSettings chooses itself.
var chosen = []string{"tcp:listen", "tcp:advertise", "tcp:endpoints", "udp:mode", "udp:port", "udp:interface", "udp:peers"}

// settings returns what [demoSettings] does, without a port for UDP; or the problem with settings that the instances could not
// make their transports by, or would not heed.
func (c *demoCmd) settings(environ []string) (*appsettings.Settings, error) {
	// An empty variable is how many tools say that it is not set.
	environ = slices.DeleteFunc(slices.Sorted(slices.Values(environ)), func(kv string) bool {
		return settingPath(kv) == "" || strings.HasSuffix(kv, "=")
	})
	for _, kv := range environ {
		if err := refuseChosen(kv); err != nil {
			return nil, err
		}
	}
	s, err := demoSettings(c.Provider, 0)
	if err != nil {
		return nil, &problem{exitUsage, err, "correct it; --provider says which transport is in use"}
	}
	for _, kv := range environ {
		if err := refuseUnread(s, kv); err != nil {
			return nil, err
		}
	}
	if c.Events == "off" {
		return s, nil
	}
	made, err := s.Config(unused{})
	if err != nil {
		return nil, &problem{exitUsage, err, "set it in appsettings.json, or in the environment with __ in place of each colon"}
	}
	for _, p := range made.Providers {
		p.Close() // it was never started
	}
	return s, nil
}

// refuseChosen returns the problem with an environment variable that says what the demonstration chooses itself.
func refuseChosen(kv string) error {
	name, _, _ := strings.Cut(kv, "=")
	path := settingPath(kv)
	switch {
	case within(path, "provider"):
		return &problem{exitUsage, fmt.Errorf("%s: the demonstration does not read it", name), "use --provider in its place"}
	case slices.ContainsFunc(chosen, func(own string) bool { return within(path, own) }):
		return &problem{exitUsage, fmt.Errorf("%s: the demonstration chooses where its processes listen", name), "unset it"}
	}
	return nil
}

// refuseUnread returns the problem with an environment variable that is a setting, and would change nothing here.
func refuseUnread(s *appsettings.Settings, kv string) error {
	name, _, _ := strings.Cut(kv, "=")
	key, _, _ := strings.Cut(settingPath(kv), ":")
	switch {
	case key == "standby":
	case !slices.Contains(transports.Names(), key):
		return &problem{exitUsage, fmt.Errorf("%s: the demonstration does not read it", name), "unset it; what it reads: " + invocation() + " demo --help"}
	case !inUse(s, key):
		return &problem{exitUsage, fmt.Errorf("%s: the demonstration does not use %s", name, key),
			fmt.Sprintf("add --provider %s to use it, or Carillon__Standby=%[1]s to move to it; or unset it", key)}
	}
	return nil
}

// inUse reports whether a transport carries the events, or stands by.
func inUse(s *appsettings.Settings, name string) bool {
	return slices.Contains(s.Providers, name) || slices.Contains(s.Standby, name)
}

// settingPath returns the path below Carillon, in small letters, of the setting that an environment variable is; "" if it is none.
func settingPath(kv string) string {
	name, _, _ := strings.Cut(kv, "=")
	path, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(name, "__", ":")), "carillon:")
	if !ok {
		return ""
	}
	return path
}

// within reports whether path is section or below it.
func within(path, section string) bool {
	return path == section || strings.HasPrefix(path, section+":")
}

// unused stands for a site database where one must be named and is not used.
type unused struct{ site.Database }
