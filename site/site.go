// Package site is the contract of the site database: the SQL database that all
// instances of an application share, and the root of trust of its events. It
// says who may speak (sites and their keys) and who is there (members).
//
// Applications that use a SQL database need only package sqlsite. This package
// is for those who keep the same facts somewhere else; package sitetest checks
// every sentence of [Database].
package site

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// An ID names a site for ever. The zero ID names none.
type ID [16]byte

// A StreamID names the numbered frames of one instance, that is of one run of
// one process: 8 bytes of epoch, big endian, taken from the database, then 8
// random bytes. A restart has a new one. The zero StreamID names none.
type StreamID [16]byte

// A KeyID names a key within its site. It starts at 1; 0 names none.
type KeyID uint32

// A Mark is a position in a stream. The zero Mark is the start of it.
type Mark struct {
	Frame uint64 // number of the last frame at or below this position; the first frame is 1
	Next  uint64 // ordinal of the next event, which is how many events there were; the first event is 0
}

// Site is one application whose instances share the database.
type Site struct {
	ID         ID
	Name       string
	Generation uint64 // of its last change; see below
	Floors     Floors
	Keys       []Key // ascending by ID; exactly one is KeyActive
	Transports Transports

	// Every change to Keys, Floors or Transports of any site takes the next number of one
	// counter of the database. So generations of different sites are comparable:
	// who has read all sites at once, and among them one of generation n, has read
	// every change up to n.
}

// Floors are the least protection that the site's instances accept. They live
// in the database so that no sender can argue them down.
type Floors struct {
	MACRequired        bool  // tags are checked even where a provider declares a secure channel
	EncryptionRequired bool  // frames of a suite that does not encrypt are refused
	Version            uint8 // lowest wire version accepted
}

// KeyState is where a key is in its life. The zero value is not a state.
type KeyState uint8

const (
	_           KeyState = iota
	KeyPending           // verifies; not yet everywhere
	KeyActive            // signs and verifies
	KeyRetiring          // verifies what was signed before its successor became active
	KeyRevoked           // neither; its row remains so that the ID is never used again

	// KeyCompromised is KeyRevoked, and says that somebody else may have had the
	// key: an instance that verified with it trusts nothing any more that
	// it was told under the site's keys.
	KeyCompromised
)

// Suite is how a key protects frames. The zero value is not a suite.
type Suite uint8

const (
	_               Suite = iota
	SuiteHMACSHA256       // a 32-byte tag; the body travels in the clear
	SuiteAES256GCM        // the body is encrypted; a 16-byte tag
	_                     // never given: in docs/vectors.json it stands for a suite that nobody knows
	SuiteGHASHHMAC        // as SuiteHMACSHA256, of the body's GHASH: a quarter of the time
)

// Key is one entry of a site's keyring.
type Key struct {
	ID      KeyID
	State   KeyState
	Suite   Suite
	Version uint8 // wire version that frames under this key have

	// Secret is empty once the key is revoked or compromised: the database
	// forgets it then.
	Secret Secret

	// Until is when a retiring key ends to verify, by the database's clock, to the
	// millisecond. Zero means that nobody knows yet, because some instance may
	// still sign with it.
	Until time.Time

	// Changed is the generation of the last change to the key; zero if that is not
	// known. The database writes it, and ignores it in what a caller passes in. An
	// instance that [Member.Signs] with a generation from this one on signs
	// as the change says.
	Changed uint64
}

// Role says which events an instance takes part in. Every role takes part in
// control traffic. The zero Role is not valid in a member row.
type Role uint8

const (
	RolePublish   Role = 1 << iota // raises events for others
	RoleSubscribe                  // hears the events of others
)

// MemberState is what the database knows of an instance. The zero value is not
// a state.
type MemberState uint8

const (
	_            MemberState = iota
	MemberOpen               // running, as far as anybody knows
	MemberClosed             // said goodbye; Mark is final
	MemberReaped             // its lease lapsed long ago and another instance closed it
)

// Member is one instance's row. Rows are inserted once, updated, and stay as
// tombstones for a day after they are closed or reaped; a stream never returns.
type Member struct {
	Site        ID
	Stream      StreamID
	Server      string
	Application string
	Version     string // of the program, for people; may be empty
	Role        Role
	Addresses   map[string][]string // provider name → where it can be reached
	State       MemberState
	Mark        Mark // the last that the instance wrote; it lags by up to one renewal

	// Verifies and Signs are the highest generation among all sites that the
	// instance had read when it could verify with their keys, and when it signed
	// with the active key of its own.
	Verifies, Signs uint64

	// Providers are the names of the transports that the instance has, in use or standing by, and Uses those of
	// them that it uses where [Site.Transports] is zero. Ascending; none in rows of programs that know
	// of no [Transports].
	Providers, Uses []string

	// Carries is the highest generation among all sites that the instance had read when it
	// did what the Transports of the sites say that it accepts.
	Carries uint64

	// Witness is a random value that the instance wrote to show that this very row
	// is its own: a copy of the database has the row and not what is written
	// into it later. Zero: none was needed yet. Join ignores it.
	Witness [16]byte

	// Joined, Seen and Lapsed are written by the database, by its own clock, and
	// ignored in what a caller passes in.
	Joined time.Time
	Seen   time.Time // last renewal
	Lapsed bool      // the lease had run out when the row was read
}

// Renewal is what an instance writes about itself at intervals.
type Renewal struct {
	Mark            Mark
	Verifies, Signs uint64
	Carries         uint64
	Addresses       map[string][]string // nil leaves them as they are
	Providers       []string            // nil leaves them as they are
	Witness         [16]byte            // zero leaves it as it is
	Lease           time.Duration       // how long the row counts as live from now on, by the database's clock
}

// A Revision orders the changes to member rows and sites. The zero Revision
// lies before the first change.
type Revision int64

// Snapshot is what one consistent read saw.
type Snapshot struct {
	Members  []Member
	Sites    []Site   // empty when no site or key changed since the Revision asked for
	Revision Revision // pass it to the next [Database.Changes]
	Now      time.Time
}

// Database keeps what the instances of one or several sites must agree on. It
// is safe for concurrent use. Implementations retry by themselves, with jitter,
// what fails only because another instance was quicker, and return every other
// error as it is, wrapped with what was tried. No method returns or logs a
// secret except inside [Key].
type Database interface {
	// EnsureSite brings the schema up to date and returns the site of this name,
	// creating it with an ID and one active key when there is none. Any number of
	// processes may call it at once, on an empty database too; all get the same
	// answer. A schema newer than the implementation is [ErrSchema]. What a new site
	// holds is [NewSite]; a name that [CheckName] refuses is an error.
	EnsureSite(ctx context.Context, name string) (Site, error)

	// Sites returns all sites, by name.
	Sites(ctx context.Context) ([]Site, error)

	// ChangeSite stores the Keys, Floors and Transports of next, if its Generation is still the one that is
	// stored, and gives the site the next generation; it returns the site as it is
	// stored then. [ErrConflict] means that it was changed meanwhile: read it
	// again and decide anew. What [CheckChange] refuses is an error, and so is a site that does
	// not exist. The secrets of keys that are revoked or compromised are forgotten. When
	// it returns another error, the change may be stored or not.
	ChangeSite(ctx context.Context, next Site) (Site, error)

	// NextEpoch returns a number that no call returned before: the first half of
	// a [StreamID].
	NextEpoch(ctx context.Context) (uint64, error)

	// Join inserts m as an open row that lives for lease. When it returns nil the row is
	// committed; when it returns an error the row may be or not be there, and the
	// caller takes a new stream. It returns an error, and inserts nothing, when
	// [Member.Check] or [CheckLease] does, when the site does not exist, when the stream
	// has a row in any state, and [ErrFull] when the site has too many open rows.
	Join(ctx context.Context, m Member, lease time.Duration) error

	// Snapshot reads, on the primary and in a transaction of its own, all open rows of the
	// sites given, whatever their lease, and those of the sites that exist. The read must
	// see the row of self, of whichever site, else the answer came from a replica
	// that lags: [ErrStale]. A row of self that is no longer open is [ErrGone].
	Snapshot(ctx context.Context, self StreamID, sites []ID) (Snapshot, error)

	// Changes reads the rows in any state, of all sites, that changed after since, and
	// all sites if any site or key changed after it. Rows that were
	// removed at the end of their day as tombstones are not reported. A row is
	// reported late never, twice perhaps. Changes(0) reads everything. A database that
	// has not yet come to since is [ErrStale].
	Changes(ctx context.Context, since Revision) (Snapshot, error)

	// Renew extends the lease of an open row and writes r into it. [ErrGone]
	// means that the row is closed, reaped or removed. Marks and generations never go back:
	// a lower one leaves what the row has.
	Renew(ctx context.Context, self StreamID, r Renewal) error

	// Leave closes the row with its final mark. A row that was reaped takes the mark, if it is
	// higher, and stays reaped: its instance lived, and others must learn how far it came.
	// Leaving twice, or a row that was removed, is no error and changes nothing.
	Leave(ctx context.Context, self StreamID, final Mark) error

	// Reap turns open rows whose lease lapsed more than grace ago into tombstones and
	// removes tombstones older than a day. It returns the streams it closed.
	// One of several concurrent callers closes a row.
	Reap(ctx context.Context, grace time.Duration) ([]StreamID, error)

	// ClientAddr returns the address under which the database sees this process, which
	// is where other instances most likely reach it. An embedded
	// database answers with the loopback address.
	ClientAddr(ctx context.Context) (netip.Addr, error)
}

var (
	// ErrGone reports that a member row is closed, reaped or removed, so that its
	// stream has ended. It is never returned because the database is away.
	ErrGone = errors.New("site: the member row is gone")

	// ErrStale reports a read that did not see what this process had committed
	// before: a replica answered. Use the primary.
	ErrStale = errors.New("site: the database answered from a stale replica")

	// ErrSchema reports tables written by a newer version of this library.
	ErrSchema = errors.New("site: the tables are newer than this program")

	// ErrConflict reports that a site was changed since it was read, so that nothing
	// was stored. It is never returned because the database is away or busy.
	ErrConflict = errors.New("site: the site was changed meanwhile")

	// ErrRestored reports a database that is older than it is known to have been: it was
	// restored from a backup, or is another database. The error says what to do.
	ErrRestored = errors.New("site: the database is older than it was")

	// ErrSecret reports a stored secret that this program cannot read, or is not
	// to read, as it is configured. The error says what to do.
	ErrSecret = errors.New("site: a stored secret cannot be used")

	// ErrFull reports a site with as many open member rows as the database allows.
	// Rows of dead instances stop counting when they are reaped.
	ErrFull = errors.New("site: the site has too many members")

	// ErrBusy reports that the database gave no connection or lock in time. The same call may
	// succeed later.
	ErrBusy = errors.New("site: the database is busy")
)
