package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/keyring"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// secretCmd is about the keys of a site. No command shows a secret.
type secretCmd struct {
	List    secretListCmd    `cmd:"" help:"List the keys of a site, without their secrets."`
	Rotate  secretRotateCmd  `cmd:"" help:"Replace the active key while the instances run; nothing is lost."`
	Revoke  secretRevokeCmd  `cmd:"" help:"Emergency: somebody else may have had a key; refuse it everywhere, now."`
	Floors  secretFloorsCmd  `cmd:"" help:"Show or set the least protection that the instances accept."`
	Encrypt secretEncryptCmd `cmd:"" help:"Encrypt the secrets that are in the database, or decrypt them."`
}

// An operated site is the one that a command is about, with its database.
type operated struct {
	settings *appsettings.Settings
	db       *sqlsite.Database
	site     site.Site
	close    func()
}

// operate opens the database and finds the site. The caller calls close.
func (f *siteFlags) operate(ctx context.Context, std streams) (*operated, error) {
	s, err := f.settings(std, nil)
	if err != nil {
		return nil, err
	}
	db, closeDatabase, err := openDatabase(s)
	if err != nil {
		return nil, err
	}
	st, err := known(ctx, db, s)
	if err != nil {
		closeDatabase()
		return nil, err
	}
	return &operated{s, db, st, closeDatabase}, nil
}

// within bounds ctx by the time that the database has.
func (f *siteFlags) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, f.Timeout)
}

type secretListCmd struct {
	siteFlags
	JSON bool `name:"json" help:"Print JSON."`
}

// A keyInfo is one key. With JSON, its fields are stable.
type keyInfo struct {
	ID      site.KeyID `json:"id"`
	State   string     `json:"state"` // pending, active, retiring, revoked, compromised
	Suite   string     `json:"suite"`
	Version uint8      `json:"version"`
	Until   *time.Time `json:"until,omitempty"`
	Changed uint64     `json:"changed,omitempty"`
}

// A siteInfo is one site with its keys. With JSON, its fields are stable.
type siteInfo struct {
	Site       string     `json:"site"`
	ID         string     `json:"id"`
	Generation uint64     `json:"generation"`
	Floors     floorsInfo `json:"floors"`
	Keys       []keyInfo  `json:"keys"`
}

type floorsInfo struct {
	MAC        bool  `json:"mac"`
	Encryption bool  `json:"encryption"`
	Version    uint8 `json:"version"`
}

func describeSite(s site.Site) siteInfo {
	info := siteInfo{
		Site: s.Name, ID: s.ID.String(), Generation: s.Generation, Keys: []keyInfo{},
		Floors: floorsInfo{s.Floors.MACRequired, s.Floors.EncryptionRequired, s.Floors.Version},
	}
	for _, k := range s.Keys {
		key := keyInfo{ID: k.ID, State: k.State.String(), Suite: k.Suite.String(), Version: k.Version, Changed: k.Changed}
		if !k.Until.IsZero() {
			key.Until = new(k.Until.UTC())
		}
		info.Keys = append(info.Keys, key)
	}
	return info
}

// printSite prints a site as JSON or for people.
func printSite(w io.Writer, s site.Site, asJSON bool) error {
	info := describeSite(s)
	if asJSON {
		return printJSON(w, info)
	}
	fmt.Fprintf(w, "site %q (%s), generation %d; accepted: %s\n", info.Site, info.ID, info.Generation, keyring.Describe(s.Floors))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tSTATE\tSUITE\tVERIFIES UNTIL")
	for _, k := range info.Keys {
		until := "-"
		if k.Until != nil {
			until = k.Until.Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", k.ID, k.State, k.Suite, until)
	}
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Run implements the command.
func (c *secretListCmd) Run(ctx context.Context, std streams) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	o, err := c.operate(ctx, std)
	if err != nil {
		return err
	}
	defer o.close()
	return printSite(std.out, o.site, c.JSON)
}

type secretRotateCmd struct {
	siteFlags
	Suite    string        `placeholder:"NAME" help:"Suite of the new key: ghash-hmac-sha-256, hmac-sha-256, or aes-256-gcm which also encrypts (default: that of the active key)."`
	Overlap  time.Duration `default:"90s" help:"How long the old key verifies after the last instance has signed with the new one. Where a message broker keeps events for longer, as long as that."`
	Patience time.Duration `default:"60s" help:"How long an instance may be lapsed before the rotation stops, or with --force goes on without it."`
	Force    bool          `help:"Go on without instances whose lease has lapsed. What they send afterwards is refused, if they are alive after all."`
	Wait     time.Duration `default:"15m" help:"How long the whole may take; 0 for ever. The same command carries on later."`
	DryRun   bool          `help:"Print the steps and do nothing."`
	JSON     bool          `name:"json" help:"Print each step as one line of JSON."`
}

// Help is shown by "carillon secret rotate --help".
func (c *secretRotateCmd) Help() string {
	return "Every step is a state in the site database: the command may be stopped anywhere, and the same command, from any machine, carries on. A rotation that is under way is finished instead of a new one begun."
}

// A stepInfo is one step of a rotation. With JSON, its fields are stable.
type stepInfo struct {
	Step    string       `json:"step"` // create, await-verify, promote, await-sign, end, await-end, revoke, done; away
	Text    string       `json:"text"`
	Key     site.KeyID   `json:"key,omitempty"`
	Suite   string       `json:"suite,omitempty"`
	Old     []site.KeyID `json:"old,omitempty"`
	Until   *time.Time   `json:"until,omitempty"`
	Waiting []memberInfo `json:"waiting,omitempty"`
	Left    []memberInfo `json:"left,omitempty"` // without whom the rotation goes on
}

func describeStep(s keyring.Step) stepInfo {
	info := stepInfo{Step: s.Action.String(), Text: s.String(), Key: s.Key, Suite: s.Suite.String(), Old: s.Old}
	if !s.Until.IsZero() {
		info.Until = new(s.Until.UTC())
	}
	info.Waiting = describeAll(s.Waiting)
	return info
}

// Run implements the command.
func (c *secretRotateCmd) Run(ctx context.Context, std streams) error {
	var suite site.Suite
	if c.Suite != "" {
		var err error
		if suite, err = site.ParseSuite(c.Suite); err != nil {
			return &problem{exitUsage, err, ""}
		}
	}
	if err := checkTimes(c.Overlap, c.Patience, c.Wait); err != nil {
		return err
	}
	opening, cancel := c.within(ctx)
	defer cancel()
	o, err := c.operate(opening, std)
	if err != nil {
		return err
	}
	defer o.close()
	if c.DryRun {
		return c.plan(opening, std, o, suite)
	}
	if c.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Wait)
		defer cancel()
	}
	_, err = keyring.Rotate(ctx, o.db, o.site.Name, keyring.Options{
		Suite: suite, Overlap: c.Overlap, Force: c.Force, Patience: c.Patience,
		Progress: func(p keyring.Progress) {
			info := describeStep(p.Step)
			switch {
			case p.Err != nil:
				info = stepInfo{Step: away, Text: awayText(p.Err)}
			case len(p.Left) > 0:
				info.Left, info.Text = describeAll(p.Left), withoutText(p.Left, c.Patience, info.Text)
			}
			tellStep(std.out, c.JSON, info, info.Text)
		},
	})
	return c.problem(o.settings, err)
}

// problem says what to do about a rotation that did not come to its end.
func (c *secretRotateCmd) problem(s *appsettings.Settings, err error) error {
	again := c.command("secret rotate")
	if _, ok := errors.AsType[*keyring.LapsedError](err); ok {
		return &problem{exitTimeout, err, "where they are: " + c.command("members") + "; without them: " + again + " --force"}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{exitTimeout, err, "wait longer with --wait; who is there: " + c.command("members")}
	case errors.Is(err, context.Canceled):
		return &problem{exitFailed, err, "to carry on: " + again}
	case errors.Is(err, keyring.ErrUnderWay), errors.Is(err, keyring.ErrCompromised):
		return &problem{exitFailed, err, "its state: " + c.command("secret list")}
	case errors.Is(err, site.ErrSchema), errors.Is(err, site.ErrBusy), errors.Is(err, site.ErrSecret):
		return databaseProblem(s, err)
	}
	return err
}

func (c *secretRotateCmd) plan(ctx context.Context, std streams, o *operated, suite site.Suite) error {
	snap, err := o.db.Changes(ctx, 0)
	if err != nil {
		return databaseProblem(o.settings, err)
	}
	v, err := keyring.NewView(snap, o.site.Name)
	if err != nil {
		return err
	}
	plan, err := keyring.Plan(v, keyring.Rotation{Suite: suite, Overlap: c.Overlap})
	if err != nil {
		return c.problem(o.settings, err)
	}
	for _, step := range plan {
		info := describeStep(step)
		tellStep(std.out, c.JSON, info, info.Text)
	}
	return nil
}

type secretRevokeCmd struct {
	Keys []uint32 `arg:"" optional:"" help:"IDs of the keys."`
	All  bool     `help:"All keys that still verify, as after a theft of the database or of a backup."`
	siteFlags
	DryRun bool `help:"Print what would change and do nothing."`
	JSON   bool `name:"json" help:"Print the keys as they are afterwards as JSON."`
}

// Help is shown by "carillon secret revoke --help".
func (c *secretRevokeCmd) Help() string {
	return "Every instance refuses the keys as soon as it reads of it, within about a second, takes a new stream under a new key, and discards what it was told before: after a theft nothing accepted under them can be trusted. Events on their way are missed. To replace a key in good order: carillon secret rotate."
}

// Run implements the command.
func (c *secretRevokeCmd) Run(ctx context.Context, std streams) error {
	if c.All == (len(c.Keys) > 0) {
		return &problem{exitUsage, errors.New("no key is named"), "name the keys, or all of them with --all, not both; the keys: " + c.command("secret list")}
	}
	ctx, cancel := c.within(ctx)
	defer cancel()
	o, err := c.operate(ctx, std)
	if err != nil {
		return err
	}
	defer o.close()
	var ids []site.KeyID
	for _, k := range c.Keys {
		ids = append(ids, site.KeyID(k))
	}
	next, changed, err := keyring.Compromise(o.site, ids)
	if err != nil {
		return &problem{exitUsage, err, "the keys: " + c.command("secret list")}
	}
	if !c.DryRun && changed {
		if next, err = keyring.RevokeNow(ctx, o.db, o.site.Name, ids); err != nil {
			return databaseProblem(o.settings, err)
		}
	}
	if !c.JSON {
		switch {
		case !changed:
			fmt.Fprintln(std.out, "nothing to do: they are compromised already")
		case c.DryRun:
			fmt.Fprintln(std.out, "nothing was changed; it would be:")
		}
	}
	return printSite(std.out, next, c.JSON)
}

type secretFloorsCmd struct {
	siteFlags
	MAC        string `name:"mac" placeholder:"WORD" help:"required: tags are checked even where a provider declares a secure channel; or optional."`
	Encryption string `placeholder:"WORD" help:"required: frames of a suite that does not encrypt are refused; or optional."`
	Version    uint8  `name:"lowest-version" placeholder:"N" help:"Lowest wire version accepted."`
	Weaken     bool   `help:"The word that it takes to ask for less than before."`
	Force      bool   `help:"Raise floors during a rotation, though what is sealed with the other key is refused then."`
	DryRun     bool   `help:"Print what would change and do nothing."`
	JSON       bool   `name:"json" help:"Print JSON."`
}

// Run implements the command.
func (c *secretFloorsCmd) Run(ctx context.Context, std streams) error {
	for _, word := range []string{c.MAC, c.Encryption} {
		if word != "" && word != "required" && word != "optional" {
			return &problem{exitUsage, fmt.Errorf("%q is neither required nor optional", word), ""}
		}
	}
	ctx, cancel := c.within(ctx)
	defer cancel()
	o, err := c.operate(ctx, std)
	if err != nil {
		return err
	}
	defer o.close()
	floors := o.site.Floors
	if c.MAC != "" {
		floors.MACRequired = c.MAC == "required"
	}
	if c.Encryption != "" {
		floors.EncryptionRequired = c.Encryption == "required"
	}
	if c.Version != 0 {
		floors.Version = c.Version
	}
	next, changed, err := keyring.ChangeFloors(o.site, floors, c.Weaken, c.Force)
	if err == nil && changed && !c.DryRun {
		next, err = keyring.SetFloors(ctx, o.db, o.site.Name, floors, c.Weaken, c.Force)
	}
	switch {
	case errors.Is(err, keyring.ErrWeaker):
		return &problem{exitUsage, err, "if that is meant, add --weaken"}
	case errors.Is(err, keyring.ErrBelow):
		return &problem{exitFailed, err, "for a key that encrypts: " + c.command("secret rotate") + " --suite " + site.SuiteAES256GCM.String()}
	case err != nil:
		return databaseProblem(o.settings, err)
	}
	if c.DryRun && !c.JSON && changed {
		fmt.Fprintln(std.out, "nothing was changed; it would be:")
	}
	return printSite(std.out, next, c.JSON)
}

type secretEncryptCmd struct {
	siteFlags
	Plain bool `help:"Store the secrets of all sites in the clear again."`
	JSON  bool `name:"json" help:"Print what was done as JSON."`
}

// Help is shown by "carillon secret encrypt --help".
func (c *secretEncryptCmd) Help() string {
	return "Stores the secrets of all sites in the database under the first of Carillon:Database:KeyEncryptionKeys, whether they are plain or encrypted under another of them. Every instance needs the key in its configuration before."
}

// Run implements the command.
func (c *secretEncryptCmd) Run(ctx context.Context, std streams) error {
	s, err := c.settings(std, nil)
	if err != nil {
		return err
	}
	if err := c.refuseSite("secret encrypt"); err != nil {
		return err
	}
	if len(s.Database.KeyEncryptionKeys) == 0 {
		return &problem{exitUsage, errors.New("there is no key-encryption key"),
			"make one with: openssl rand -base64 32; and set it, on every instance first, as Carillon:Database:KeyEncryptionKeys"}
	}
	if c.Plain {
		if s.Database.Secrets == "encrypted" {
			return &problem{exitUsage, errors.New("the configuration refuses plain secrets"), "set Carillon:Database:Secrets to any, on every instance first"}
		}
		s.Database.KeyEncryptionKeys = append([]site.Secret{{}}, s.Database.KeyEncryptionKeys...)
	}
	ctx, cancel := c.within(ctx)
	defer cancel()
	db, closeDatabase, err := openDatabase(s)
	if err != nil {
		return err
	}
	defer closeDatabase()
	n, err := db.EncryptSecrets(ctx)
	if err != nil {
		return databaseProblem(s, err)
	}
	if c.JSON {
		return printJSON(std.out, struct {
			Secrets   int  `json:"secrets"`
			Encrypted bool `json:"encrypted"`
		}{n, !c.Plain})
	}
	how := "encrypted"
	if c.Plain {
		how = "in the clear"
	}
	_, err = fmt.Fprintf(std.out, "%s of all sites rest %s now\n", plural(n, "secret"), how)
	return err
}
