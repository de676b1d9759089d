package site

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of what a [Database] accepts. They are the same for every
// implementation, so that a value one of them takes never fails in another.
const (
	MaxNameLen        = 100     // bytes of a site's name
	MaxTextLen        = 255     // bytes of Server, Application, Version, a provider's name and one address
	MaxProviders      = 32      // entries of Member.Addresses
	MaxAddresses      = 64      // addresses of one provider
	MaxMark           = 1 << 48 // numbers and ordinals lie below it
	MaxKeys           = 1 << 16 // of one site, those that are revoked included
	MaxLease          = 24 * time.Hour
	DefaultMaxMembers = 4096 // open rows of one site
)

// CheckName returns an error unless name can name a site: 1 to [MaxNameLen]
// bytes of UTF-8, no space at either end, no control characters.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("site: the site's name is empty")
	case len(name) > MaxNameLen:
		return fmt.Errorf("site: the site's name has %d bytes, more than %d", len(name), MaxNameLen)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("site: the site's name %q begins or ends with a space", name)
	}
	return checkText("the site's name", name)
}

// Check returns an error unless m can be joined. It looks at what a caller sets
// and not at State or what the database writes.
func (m Member) Check() error {
	switch {
	case m.Site == ID{}:
		return errors.New("site: the member has no site")
	case m.Stream == StreamID{}:
		return errors.New("site: the member has no stream")
	case m.Role == 0 || m.Role&^(RolePublish|RoleSubscribe) != 0:
		return fmt.Errorf("site: the member's role is %d, which is not publish, subscribe or both", m.Role)
	}
	for _, f := range []struct{ what, text string }{
		{"the member's server", m.Server}, {"the member's application", m.Application}, {"the member's version", m.Version},
	} {
		if err := checkText(f.what, f.text); err != nil {
			return err
		}
	}
	if err := checkGenerations(m.Verifies, m.Signs, m.Carries); err != nil {
		return err
	}
	if err := checkProviders("the member's providers", m.Providers); err != nil {
		return err
	}
	if err := checkProviders("the providers that the member uses", m.Uses); err != nil {
		return err
	}
	if err := m.Mark.Check(); err != nil {
		return err
	}
	return checkAddresses(m.Addresses)
}

// Check returns an error unless r can be written.
func (r Renewal) Check() error {
	if err := CheckLease(r.Lease); err != nil {
		return err
	}
	if err := checkGenerations(r.Verifies, r.Signs, r.Carries); err != nil {
		return err
	}
	if err := checkProviders("the member's providers", r.Providers); err != nil {
		return err
	}
	if err := r.Mark.Check(); err != nil {
		return err
	}
	return checkAddresses(r.Addresses)
}

// Check returns an error unless both halves of m lie below [MaxMark].
func (m Mark) Check() error {
	if m.Frame >= MaxMark || m.Next >= MaxMark {
		return fmt.Errorf("site: the mark (frame %d, next %d) is not below 2^48", m.Frame, m.Next)
	}
	return nil
}

// CheckLease returns an error unless lease is positive and at most [MaxLease].
func CheckLease(lease time.Duration) error {
	if lease <= 0 || lease > MaxLease {
		return fmt.Errorf("site: a lease of %v is not between 0 and %v", lease, MaxLease)
	}
	return nil
}

func checkGenerations(generations ...uint64) error {
	for _, n := range generations {
		if n >= 1<<63 {
			return fmt.Errorf("site: the generation %d is not below 2^63", n)
		}
	}
	return nil
}

func checkAddresses(addresses map[string][]string) error {
	if len(addresses) > MaxProviders {
		return fmt.Errorf("site: addresses for %d providers, more than %d", len(addresses), MaxProviders)
	}
	for provider, list := range addresses {
		if err := checkText("a provider's name", provider); err != nil {
			return err
		}
		if len(list) > MaxAddresses {
			return fmt.Errorf("site: %d addresses for provider %q, more than %d", len(list), provider, MaxAddresses)
		}
		for _, a := range list {
			if err := checkText("an address of provider "+provider, a); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkText(what, text string) error {
	switch {
	case len(text) > MaxTextLen:
		return fmt.Errorf("site: %s has %d bytes, more than %d", what, len(text), MaxTextLen)
	case !utf8.ValidString(text):
		return fmt.Errorf("site: %s %q is not UTF-8", what, text)
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("site: %s %q has control characters", what, text)
	}
	return nil
}
