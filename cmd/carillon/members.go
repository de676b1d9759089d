package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/carillon-go/carillon/site"
)

type membersCmd struct {
	siteFlags
	All  bool `help:"Also those that have ended within the last day."`
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by "carillon members --help".
func (c *membersCmd) Help() string {
	return "Reads the site database and nothing else: it does not join the site, and needs no provider."
}

// A memberInfo is one instance. With JSON, its fields are stable.
type memberInfo struct {
	State       string              `json:"state"` // live, lapsed, closed, lost
	Server      string              `json:"server"`
	Application string              `json:"application"`
	Version     string              `json:"version,omitempty"`
	Role        string              `json:"role"`
	Stream      string              `json:"stream"`
	Addresses   map[string][]string `json:"addresses,omitempty"`
	Joined      time.Time           `json:"joined"`
	Seen        time.Time           `json:"seen"`
}

// Run implements the command.
func (c *membersCmd) Run(ctx context.Context, std streams) error {
	s, err := c.settings(std, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	db, closeDatabase, err := openDatabase(s)
	if err != nil {
		return err
	}
	defer closeDatabase()
	st, err := known(ctx, db, s)
	if err != nil {
		return err
	}
	snap, err := db.Changes(ctx, 0)
	if err != nil {
		return databaseProblem(s, err)
	}
	list := []memberInfo{}
	for _, m := range snap.Members {
		if m.Site == st.ID && (c.All || m.State == site.MemberOpen) {
			list = append(list, describe(m))
		}
	}
	slices.SortStableFunc(list, func(a, b memberInfo) int { return a.Joined.Compare(b.Joined) })
	if c.JSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Site    string       `json:"site"`
			ID      string       `json:"id"`
			Members []memberInfo `json:"members"`
		}{st.Name, st.ID.String(), list})
	}
	return c.table(std.out, st.Name, list, snap.Now)
}

func describe(m site.Member) memberInfo {
	info := memberInfo{
		Server: m.Server, Application: m.Application, Version: m.Version, Stream: m.Stream.String(),
		Addresses: m.Addresses, Joined: m.Joined, Seen: m.Seen,
	}
	switch {
	case m.State == site.MemberClosed:
		info.State = "closed"
	case m.State == site.MemberReaped:
		info.State = "lost"
	case m.Lapsed:
		info.State = "lapsed"
	default:
		info.State = "live"
	}
	switch m.Role {
	case site.RolePublish:
		info.Role = "publish"
	case site.RoleSubscribe:
		info.Role = "subscribe"
	default:
		info.Role = "both"
	}
	return info
}

func (c *membersCmd) table(w io.Writer, name string, list []memberInfo, now time.Time) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(w, "no instance of %q is there\n", name)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STATE\tAPPLICATION\tSERVER\tROLE\tSINCE\tLAST CONTACT\tADDRESSES")
	for _, m := range list {
		var addresses []string
		for _, p := range slices.Sorted(maps.Keys(m.Addresses)) {
			addresses = append(addresses, p+" "+strings.Join(m.Addresses[p], ","))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s ago\t%s ago\t%s\n", m.State, m.Application, m.Server, m.Role,
			ago(now, m.Joined), ago(now, m.Seen), strings.Join(addresses, " "))
	}
	return t.Flush()
}

// ago returns how long before now t was, as people say it.
func ago(now, t time.Time) string {
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dh", int(d.Hours()))
}
