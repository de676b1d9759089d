package appsettings

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/provider/udpbus"
)

// The parsers below return errors that say what is wanted. Whoever calls them
// adds the place, the key and the value.

func parseBool(text string) (bool, error) {
	switch fold(text) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("want true or false")
}

// parseInt reads a whole number from low to high.
func parseInt(text string, low, high int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("want a whole number from %d to %d", low, high)
	}
	return n, nil
}

// parseBytes reads a number of bytes from low to high, alone or with a unit. A
// high of math.MaxInt is no bound that anybody should be told.
func parseBytes(text string, low, high int) (int, error) {
	number, unit := text, 1
	for suffix, size := range map[string]int{"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30} {
		if head, ok := strings.CutSuffix(fold(text), suffix); ok {
			number, unit = strings.TrimSpace(head), size
		}
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > high/unit || n*unit < low {
		bounds := fmt.Sprintf(" from %d to %d", low, high)
		if high == math.MaxInt {
			bounds = ""
		}
		return 0, fmt.Errorf(`want a number of bytes%s, such as 65536, "64KiB" or "1MiB"`, bounds)
	}
	return n * unit, nil
}

// parseDuration reads a duration above zero, in Go's form or in .NET's.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		var ok bool
		if d, ok = parseTimeSpan(text); !ok {
			d = 0
		}
	}
	if d <= 0 {
		return 0, errors.New(`want a time above zero with its unit, such as "5s", "500ms" or "00:00:05"`)
	}
	return d, nil
}

// parseTimeSpan reads hh:mm:ss with an optional fraction of a second. Days,
// which .NET allows before it, make no sense for anything here.
func parseTimeSpan(text string) (time.Duration, bool) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return 0, false
	}
	// The first two as numbers and not as durations, which would take "1h2".
	h, err1 := parseInt(parts[0], 0, 23)
	m, err2 := parseInt(parts[1], 0, 59)
	if strings.Trim(parts[2], "0123456789.") != "" {
		return 0, false
	}
	s, err3 := time.ParseDuration(parts[2] + "s")
	if errors.Join(err1, err2, err3) != nil || s >= time.Minute {
		return 0, false
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + s, true
}

// parseChoice reads one of a few words and returns it as the list has it.
func parseChoice(text string, choices []string) (string, error) {
	for _, c := range choices {
		if strings.EqualFold(c, text) {
			return c, nil
		}
	}
	return "", errors.New(choose(text, choices))
}

func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("want an IP address, such as %q", udpbus.DefaultGroup())
	}
	return a, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		if a, err := netip.ParseAddr(text); err == nil {
			return netip.PrefixFrom(a, a.BitLen()), nil
		}
		return netip.Prefix{}, errors.New(`want a network or an address, such as "10.0.0.0/8" or "10.1.2.3"`)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits set beyond its length; want %q", p.Masked())
	}
	return p, nil
}

// parseHostPort checks host:port. The host may be empty only where that means
// all addresses, and the port may be 0 only where the system may choose one.
func parseHostPort(text string, listen bool) (string, error) {
	want := `want host:port, such as "10.1.2.3:7070" or "[fd00::1]:7070"`
	if listen {
		want = `want host:port, such as ":7070" for all addresses, "10.1.2.3:7070" or "10.1.2.3:0" for any free port`
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", errors.New(want)
	}
	low := 1
	if listen {
		low = 0
	}
	if _, err := parseInt(port, low, math.MaxUint16); err != nil {
		return "", errors.New(want)
	}
	if host == "" && !listen || strings.ContainsAny(host, " /") {
		return "", errors.New(want)
	}
	return text, nil
}

// parseHost checks a host with or without a port.
func parseHost(text string) (string, error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return text, nil
	}
	if text != "" && !strings.ContainsAny(text, ":/ ") {
		return text, nil
	}
	if _, err := parseHostPort(text, false); err == nil {
		return text, nil
	}
	return "", errors.New(`want a host, or host:port, such as "10.1.2.3" or "node7.example:7070"`)
}
