package sqlsite

import (
	"context"
	"hash/fnv"
	"strings"

	"github.com/carillon-go/carillon/site"
)

// migrations brings the tables from version i to version i+1. An entry is never changed once it
// was released; a change is a new entry. MySQL commits after each statement, so every statement must bear
// being run again after it succeeded.
//
// Times are milliseconds since 1970 by the database's clock. Binary columns hold the
// bytes of IDs and secrets.
var migrations = [][]string{
	{
		`CREATE TABLE IF NOT EXISTS {counters} (
			id            {int} NOT NULL PRIMARY KEY,
			epoch         {int} NOT NULL,
			revision      {int} NOT NULL,
			site_revision {int} NOT NULL
		){engine}`,
		`CREATE TABLE IF NOT EXISTS {sites} (
			id                  {id}   NOT NULL PRIMARY KEY,
			name                {name} NOT NULL UNIQUE,
			generation          {int}  NOT NULL,
			mac_required        {int}  NOT NULL,
			encryption_required {int}  NOT NULL,
			lowest_version      {int}  NOT NULL,
			created_ms          {int}  NOT NULL
		){engine}`,
		`CREATE TABLE IF NOT EXISTS {keys} (
			site_id      {id}     NOT NULL,
			key_id       {int}    NOT NULL,
			state        {int}    NOT NULL,
			suite        {int}    NOT NULL,
			wire_version {int}    NOT NULL,
			secret       {secret} NOT NULL,
			created_ms   {int}    NOT NULL,
			changed_ms   {int}    NOT NULL,
			PRIMARY KEY (site_id, key_id)
		){engine}`,
		`CREATE TABLE IF NOT EXISTS {members} (
			stream_id      {id}   NOT NULL PRIMARY KEY,
			site_id        {id}   NOT NULL,
			server         {text} NOT NULL,
			application    {text} NOT NULL,
			version        {text} NOT NULL,
			role           {int}  NOT NULL,
			addresses      {json} NOT NULL,
			state          {int}  NOT NULL,
			mark_frame     {int}  NOT NULL,
			mark_next      {int}  NOT NULL,
			verifies       {int}  NOT NULL,
			signs          {int}  NOT NULL,
			witness        {secret},
			joined_ms      {int}  NOT NULL,
			seen_ms        {int}  NOT NULL,
			lease_until_ms {int}  NOT NULL,
			closed_ms      {int},
			revision       {int}  NOT NULL{indexes}
		){engine}`,
		`{index}members_by_revision ON {members} (revision)`,
		`{index}members_by_site ON {members} (site_id, state)`,
	},
	{
		`{column} {keys} until_ms {int}`,
		`{column} {keys} changed_generation {int} NOT NULL DEFAULT 0`,
		`{column} {counters} generation {int} NOT NULL DEFAULT 0`,
		`UPDATE {counters} SET generation = (SELECT COALESCE(MAX(generation), 0) FROM {sites}) WHERE generation = 0`,
	},
	{
		`{column} {sites} transports {json}`,
		`{column} {members} has_providers {json}`,
		`{column} {members} uses_providers {json}`,
		`{column} {members} carries {int} NOT NULL DEFAULT 0`,
	},
}

// What stands for the words in braces above.
var columnTypes = map[Dialect]*strings.Replacer{
	SQLite: strings.NewReplacer("{int}", "INTEGER", "{id}", "BLOB", "{secret}", "BLOB", "{name}", "TEXT", "{text}", "TEXT", "{json}", "TEXT",
		"{indexes}", "", "{index}", "CREATE INDEX IF NOT EXISTS {prefix}", "{engine}", ""),
	PostgreSQL: strings.NewReplacer("{int}", "BIGINT", "{id}", "BYTEA", "{secret}", "BYTEA", "{name}", "TEXT", "{text}", "TEXT", "{json}", "TEXT",
		"{indexes}", "", "{index}", "CREATE INDEX IF NOT EXISTS {prefix}", "{engine}", ""),
	// MySQL cannot create an index only if there is none, so its indexes are part of the table.
	MySQL: strings.NewReplacer("{int}", "BIGINT", "{id}", "BINARY(16)", "{secret}", "VARBINARY(255)", "{name}", "VARCHAR(100)", "{text}", "VARCHAR(255)", "{json}", "MEDIUMTEXT",
		"{indexes}", ", KEY members_by_revision (revision), KEY members_by_site (site_id, state)",
		"{engine}", " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
}

// migrate brings the tables up to date. Of many who find them out of date at
// once, one changes them and the others wait and then find them done.
func (d *Database) migrate(ctx context.Context, c *conn) error {
	version, err := d.schemaVersion(ctx, c)
	if err != nil || version == len(migrations) {
		return err
	}
	switch d.dialect {
	case PostgreSQL:
		return c.write(ctx, func() error {
			if _, err := c.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, d.lockKey()); err != nil {
				return err
			}
			return d.upgrade(ctx, c)
		})
	case MySQL:
		return d.migrateMySQL(ctx, c)
	default:
		return c.write(ctx, func() error { return d.upgrade(ctx, c) })
	}
}

// lockKey is the number of PostgreSQL's advisory lock: the same for all who
// have the same tables.
func (d *Database) lockKey() int64 {
	h := fnv.New64a()
	h.Write([]byte("carillon migrates " + d.prefix))
	return int64(h.Sum64())
}

// migrateMySQL holds a named lock, because there a transaction does not span changes to tables. The
// lock ends with the connection at the latest.
func (d *Database) migrateMySQL(ctx context.Context, c *conn) error {
	const name = `CONCAT('carillon ', MD5(CONCAT(DATABASE(), ' ', ?)))` // names are the server's, not the database's, and 64 bytes at most
	for {
		var got *int64
		if err := c.QueryRowContext(ctx, `SELECT GET_LOCK(`+name+`, 2)`, d.prefix).Scan(&got); err != nil {
			return err
		}
		if got != nil && *got == 1 {
			break
		}
	}
	err := d.upgrade(ctx, c)
	var released *int64
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if c.QueryRowContext(ctx, `SELECT RELEASE_LOCK(`+name+`)`, d.prefix).Scan(&released) != nil {
		c.unfit = true
	}
	return err
}

// upgrade runs the migrations that are missing. Nobody else does so meanwhile.
func (d *Database) upgrade(ctx context.Context, c *conn) error {
	version, err := d.schemaVersion(ctx, c)
	if err != nil || version == len(migrations) {
		return err
	}
	if version == 0 {
		const table = `CREATE TABLE IF NOT EXISTS {migrations} (version {int} NOT NULL PRIMARY KEY, applied_ms {int} NOT NULL){engine}`
		if err := c.exec(ctx, d.columns(table)); err != nil {
			return err
		}
	}
	for ; version < len(migrations); version++ {
		for _, statement := range migrations[version] {
			statement = d.columns(statement)
			if strings.HasPrefix(statement, "{index}") {
				continue // it was part of the table
			}
			if column, ok := strings.CutPrefix(statement, "{column} "); ok {
				var done bool
				if statement, done, err = d.addColumn(ctx, c, column); err != nil {
					return err
				}
				if done {
					continue
				}
			}
			if err := c.exec(ctx, statement); err != nil {
				return err
			}
		}
		if version == 0 {
			if err := d.addCounters(ctx, c); err != nil {
				return err
			}
		}
		if err := c.exec(ctx, `INSERT INTO {migrations} (version, applied_ms) VALUES (?, `+d.dialect.nowMS()+`)`, version+1); err != nil {
			return err
		}
	}
	return nil
}

// addColumn returns the statement that adds a column, given as "{table} name
// type", and whether the table has it already: MySQL and SQLite cannot add one only
// if there is none.
func (d *Database) addColumn(ctx context.Context, c *conn, column string) (statement string, done bool, err error) {
	table, definition, _ := strings.Cut(column, " ")
	name, _, _ := strings.Cut(definition, " ")
	query := `SELECT COUNT(*) FROM pragma_table_info(?) WHERE name = ?`
	switch d.dialect {
	case PostgreSQL:
		query = `SELECT COUNT(*) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class t ON t.oid = a.attrelid
			WHERE t.relkind = 'r' AND pg_catalog.pg_table_is_visible(t.oid) AND t.relname = ? AND a.attname = ? AND NOT a.attisdropped`
	case MySQL:
		query = `SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?`
	}
	var n int
	if err := c.queryRow(ctx, query, d.names.Replace(table), name).Scan(&n); err != nil {
		return "", false, err
	}
	return `ALTER TABLE ` + table + ` ADD COLUMN ` + definition, n > 0, nil
}

func (d *Database) columns(statement string) string {
	return columnTypes[d.dialect].Replace(statement)
}

// addCounters inserts the one row of counters unless it is there.
func (d *Database) addCounters(ctx context.Context, c *conn) error {
	var n int
	if err := c.queryRow(ctx, `SELECT COUNT(*) FROM {counters}`).Scan(&n); err != nil || n > 0 {
		return err
	}
	return c.exec(ctx, `INSERT INTO {counters} (id, epoch, revision, site_revision) VALUES (1, 0, 0, 0)`)
}

// schemaVersion returns how many migrations the tables have had, or
// [site.ErrSchema] when that is more than there are.
func (d *Database) schemaVersion(ctx context.Context, c *conn) (int, error) {
	if ok, err := d.hasTable(ctx, c, d.prefix+"migrations"); err != nil || !ok {
		return 0, err
	}
	var version int
	if err := c.queryRow(ctx, `SELECT COALESCE(MAX(version), 0) FROM {migrations}`).Scan(&version); err != nil {
		return 0, err
	}
	if version > len(migrations) {
		return 0, finding("%w: they have version %d, this program knows %d; update the program", site.ErrSchema, version, len(migrations))
	}
	return version, nil
}

// hasTable asks the catalog, because an error about a missing table would end a transaction of PostgreSQL.
func (d *Database) hasTable(ctx context.Context, c *conn, table string) (bool, error) {
	query := `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?`
	switch d.dialect {
	case PostgreSQL:
		// Not to_regclass: that remembers a table as missing until the transaction ends, also after
		// waiting for the one who has just made it.
		query = `SELECT COUNT(*) FROM pg_catalog.pg_class WHERE relkind = 'r' AND relname = ? AND pg_catalog.pg_table_is_visible(oid)`
	case MySQL:
		query = `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?`
	}
	var n int
	err := c.queryRow(ctx, query, table).Scan(&n)
	return n > 0, err
}

// checkShared refuses a SQLite database that nobody but this connection can
// see: one in memory, without a shared cache, in a pool of several connections.
func (d *Database) checkShared(ctx context.Context, c *conn) error {
	if d.dialect != SQLite || d.borrows() {
		return nil
	}
	var file *string
	if err := c.QueryRowContext(ctx, `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&file); err != nil {
		return err
	}
	if file != nil && *file != "" || d.poolIsUsedUp() {
		return nil
	}
	second, err := d.pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer second.Close()
	ok, err := d.hasTable(ctx, &conn{Conn: second, site: d}, d.prefix+"migrations")
	if err == nil && !ok {
		return finding("the database is in memory, and every connection of the pool has one of its own; use a file, a shared cache (file:name?mode=memory&cache=shared), or SetMaxOpenConns(1)")
	}
	return err
}
