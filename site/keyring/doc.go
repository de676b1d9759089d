// Package keyring changes the keys and floors of a site while its instances run.
// It is for programs of operators; applications do not need it.
//
// A rotation is a state in the site database and nothing else: [Next] reads from one
// consistent [View] what comes next, or whom it waits for. [Rotate] does that
// until the end. It may be stopped anywhere and carried on by anybody, and several
// may run at once: every step is a compare-and-swap.
//
//	create   a pending key: everybody learns to verify with it
//	await    until every open row of the database has said so
//	promote  it: it signs now, and the old one retires
//	await    until every open row of the site signs with it
//	end      of the old key: the database's time plus the overlap
//	await    that time
//	revoke   the old key
//
// So no frame is ever sealed with a key that a receiver does not know yet, and none
// meets its key revoked that was on its way for less than the overlap.
package keyring
