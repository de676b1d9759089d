package carillon

import "fmt"

// A DropReason is why something that arrived was not delivered. The zero value
// is not a reason. Values and names are part of the metrics contract: added at
// the end, never reused.
type DropReason uint8

// All reasons but the last group count frames.
const (
	_ DropReason = iota

	// DropMalformed: the bytes are not a frame, or a frame says something
	// impossible. Somebody else uses the port or topic, or bytes were damaged.
	DropMalformed
	// DropTooLarge: longer than any frame may be.
	DropTooLarge
	// DropVersion: a frame of a wire version that this program does not know, or
	// not the one of its key. Upgrade the older program.
	DropVersion
	// DropForeignSite: a frame of a site that is not accepted: one with another
	// database, or left out by [Config.AcceptSites]. Normal on a shared network segment.
	DropForeignSite
	// DropUnknownKey: a key ID that the site database does not hold. The database is
	// asked again soon, in case the key is new.
	DropUnknownKey
	// DropIsolated: a key ID that is not known here, while the site database,
	// which may know it, is away.
	DropIsolated
	// DropRetiredKey: the key was revoked.
	DropRetiredKey
	// DropFloor: the key protects less than the site's floors ask for.
	DropFloor
	// DropUnsupportedKey: this program is too old for the key.
	DropUnsupportedKey
	// DropBadTag: the tag does not match. Somebody is forging, bytes were
	// damaged, or another database has a site of the same ID.
	DropBadTag
	// DropOwn: sent by this instance itself. Normal where a transport echoes.
	DropOwn
	// DropDuplicate: seen before. Normal where a transport delivers at least once.
	DropDuplicate
	// DropLate: arrived after its events had been told as missed.
	DropLate
	// DropBeforeBaseline: sent before this instance was in step.
	DropBeforeBaseline
	// DropUnknownStream: no member row has the stream. Its instance has another
	// database, or its row was removed.
	DropUnknownStream
	// DropClosedStream: the stream had ended.
	DropClosedStream
	// DropHeldOverflow: there was no room to keep it until its stream is known.
	DropHeldOverflow
	// DropInconsistent: contradicts what the same stream said before.
	DropInconsistent
	// DropUndecodable: authentic, but its body makes no sense; or an event, whose
	// parameter does not decode.
	DropUndecodable
	// DropRole counts events received by an instance that does not subscribe.
	DropRole
	// DropUnasked counts events whose object nobody asked for.
	DropUnasked
	// DropNotEnabled counts events beyond [Config.HoldBytes] before Enable.
	DropNotEnabled
	// DropLocalQueue counts events that a subscriber's full queue refused.
	DropLocalQueue
	// DropTapQueue counts events that the full queue of an OnReceived function refused.
	DropTapQueue
	// DropClosing counts events received after Shutdown or Close had begun.
	DropClosing

	// DropWindowFull counts frames for which there was no room, because so many
	// are missing before them. They are asked for again.
	DropWindowFull

	numDropReasons
)

var dropNames = [numDropReasons]string{
	DropMalformed: "malformed", DropTooLarge: "too-large", DropVersion: "version",
	DropForeignSite: "foreign-site", DropUnknownKey: "unknown-key", DropIsolated: "isolated",
	DropRetiredKey: "retired-key", DropFloor: "floor", DropUnsupportedKey: "unsupported-key",
	DropBadTag: "bad-tag", DropOwn: "own", DropDuplicate: "duplicate", DropLate: "late",
	DropBeforeBaseline: "before-baseline", DropUnknownStream: "unknown-stream",
	DropClosedStream: "closed-stream", DropHeldOverflow: "held-overflow",
	DropInconsistent: "inconsistent", DropUndecodable: "undecodable", DropRole: "role",
	DropUnasked: "unasked", DropNotEnabled: "not-enabled", DropLocalQueue: "local-queue",
	DropTapQueue: "tap-queue", DropClosing: "closing",
	DropWindowFull: "window-full",
}

// String returns the stable name, a label for metrics.
func (r DropReason) String() string {
	if r > 0 && r < numDropReasons {
		return dropNames[r]
	}
	return fmt.Sprintf("DropReason(%d)", uint8(r))
}

// MarshalText implements [encoding.TextMarshaler] with what String returns, so
// that a map by reason is readable as JSON.
func (r DropReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// A MissedReason is why events were missed. The zero value is not a reason.
// Values are added at the end, never reused.
type MissedReason uint8

// See [Missed].
const (
	_ MissedReason = iota
	// MissedTimeout: did not arrive within [Config.MissedAfter] after it was
	// known to exist.
	MissedTimeout
	// MissedEvicted: the sender could not keep it for long enough to repair it.
	MissedEvicted
	// MissedOverflow: more was missing, or held before Enable, than there is room for.
	MissedOverflow
	// MissedPeerLost: the sender has fallen silent, and nobody else could repair it.
	MissedPeerLost
	// MissedLocalQueue: arrived, and a subscriber of this instance was too slow.
	// Its queue was full; other subscribers may have heard it.
	MissedLocalQueue
	// MissedUndecodable: arrived, and could not be decoded.
	MissedUndecodable
	// MissedReset: the sender took a new stream.
	MissedReset
	// MissedIsolated: this instance has not reached the site database for so long
	// that there may be others whose events it does not accept. Told when that
	// begins and when it ends; how many were missed cannot be known.
	MissedIsolated

	numMissedReasons
)

var missedNames = [numMissedReasons]string{
	MissedTimeout: "timeout", MissedEvicted: "evicted", MissedOverflow: "overflow",
	MissedPeerLost: "peer-lost", MissedLocalQueue: "local-queue",
	MissedUndecodable: "undecodable", MissedReset: "reset", MissedIsolated: "isolated",
}

// String returns the stable name, a label for metrics.
func (r MissedReason) String() string {
	if r > 0 && r < numMissedReasons {
		return missedNames[r]
	}
	return fmt.Sprintf("MissedReason(%d)", uint8(r))
}

// MarshalText implements [encoding.TextMarshaler] with what String returns.
func (r MissedReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// A Role says which events an instance takes part in. Raises are heard by local
// subscribers whatever the role.
type Role uint8

const (
	// Publish raises events for other instances and does not hear theirs.
	Publish Role = 1 << iota
	// Subscribe hears the events of other instances and raises none for them.
	Subscribe
	// Both does both.
	Both = Publish | Subscribe
)

// String returns "publish", "subscribe" or "both".
func (r Role) String() string {
	switch r {
	case Publish:
		return "publish"
	case Subscribe:
		return "subscribe"
	case Both:
		return "both"
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// MarshalText implements [encoding.TextMarshaler] with what String returns.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
