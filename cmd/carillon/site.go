package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/keyring"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// siteCmd is about the sites of a database, its copies and its backups.
type siteCmd struct {
	List          siteListCmd          `cmd:"" help:"List the sites of a database."`
	Fork          siteForkCmd          `cmd:"" help:"In a copy of a database: make its site another one, with an ID and a key of its own."`
	AcceptRestore siteAcceptRestoreCmd `cmd:"" help:"After a restore from a backup: say that this is the right database."`
}

type siteListCmd struct {
	siteFlags
	JSON bool `name:"json" help:"Print JSON."`
}

// Run implements the command.
func (c *siteListCmd) Run(ctx context.Context, std streams) error {
	s, err := c.settings(std, nil)
	if err != nil {
		return err
	}
	ctx, cancel := c.within(ctx)
	defer cancel()
	db, closeDatabase, err := openDatabase(s)
	if err != nil {
		return err
	}
	defer closeDatabase()
	snap, err := db.Changes(ctx, 0)
	if err != nil {
		return databaseProblem(s, err)
	}
	live := map[site.ID]int{}
	for _, m := range snap.Members {
		if m.State == site.MemberOpen && !m.Lapsed {
			live[m.Site]++
		}
	}
	if c.JSON {
		type entry struct {
			siteInfo
			Live int `json:"live"`
		}
		list := []entry{}
		for _, st := range snap.Sites {
			list = append(list, entry{describeSite(st), live[st.ID]})
		}
		return printJSON(std.out, list)
	}
	if len(snap.Sites) == 0 {
		return noSites(s)
	}
	t := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SITE\tID\tGENERATION\tKEY\tSUITE\tLIVE\tACCEPTS")
	for _, st := range snap.Sites {
		k := st.Active()
		fmt.Fprintf(t, "%s\t%v\t%d\t%d\t%v\t%d\t%s\n", st.Name, st.ID, st.Generation, k.ID, k.Suite, live[st.ID], keyring.Describe(st.Floors))
	}
	return t.Flush()
}

type siteForkCmd struct {
	siteFlags
	Force  bool `help:"Although instances are live in the database: they start anew with the new site."`
	DryRun bool `help:"Print which site it would be and do nothing."`
	JSON   bool `name:"json" help:"Print JSON."`
}

// Help is shown by "carillon site fork --help".
func (c *siteForkCmd) Help() string {
	return "Two environments with a copy of one database, such as production and the staging restored from it, have the same site and the same keys: what happens in one would be believed in the other. Run this in the copy. Nothing that belongs to the application is touched."
}

// Run implements the command.
func (c *siteForkCmd) Run(ctx context.Context, std streams) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	o, err := c.operate(ctx, std)
	if err != nil {
		return err
	}
	defer o.close()
	if c.DryRun {
		if !c.JSON {
			fmt.Fprintln(std.out, "nothing was changed; another site would be made of:")
		}
		return printSite(std.out, o.site, c.JSON)
	}
	st, err := o.db.Fork(ctx, o.site.Name, c.Force)
	switch {
	case errors.Is(err, sqlsite.ErrLive):
		return &problem{exitFailed, err, "is this really the copy? rows that were copied run out within a minute; if the instances belong to the copy, end them, or say --force"}
	case err != nil:
		return databaseProblem(o.settings, err)
	}
	return printSite(std.out, st, c.JSON)
}

type siteAcceptRestoreCmd struct {
	siteFlags
	Above  uint64 `placeholder:"N" help:"Also jump above this generation (default: Carillon:Database:LowestGeneration)."`
	DryRun bool   `help:"Print which sites it is about and do nothing."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Help is shown by "carillon site accept-restore --help".
func (c *siteAcceptRestoreCmd) Help() string {
	return "A restored backup has keys that may have been revoked since. Instances that know better keep to what they knew, and a configured lowest generation refuses it. This raises generations and epochs above everything that was given out since the backup, revokes the keys of all sites in the database, and gives each a new one. Running instances take it over within about a second; events on their way may be missed."
}

// Run implements the command.
func (c *siteAcceptRestoreCmd) Run(ctx context.Context, std streams) error {
	s, err := c.settings(std, nil)
	if err != nil {
		return err
	}
	if err := c.refuseSite("site accept-restore"); err != nil {
		return err
	}
	above := max(c.Above, uint64(s.Database.LowestGeneration))
	if above >= 1<<62 {
		return &problem{exitUsage, fmt.Errorf("the generation %d is not one that a site ever had", above), ""}
	}
	s.Database.LowestGeneration = 0
	ctx, cancel := c.within(ctx)
	defer cancel()
	db, closeDatabase, err := openDatabase(s)
	if err != nil {
		return err
	}
	defer closeDatabase()
	sites, err := db.Sites(ctx)
	switch {
	case err != nil:
		return databaseProblem(s, err)
	case len(sites) == 0:
		return noSites(s)
	}
	if !c.DryRun {
		if sites, err = db.AcceptRestore(ctx, above); err != nil {
			return databaseProblem(s, err)
		}
	}
	if c.JSON {
		list := []siteInfo{}
		for _, st := range sites {
			list = append(list, describeSite(st))
		}
		return printJSON(std.out, list)
	}
	if c.DryRun {
		fmt.Fprintln(std.out, "nothing was changed; it is about:")
	}
	for _, st := range sites {
		if err := printSite(std.out, st, false); err != nil {
			return err
		}
	}
	return nil
}
