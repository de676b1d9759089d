// Package transports moves a site from one set of transports to another while its instances run.
// It is for programs of operators; applications do not need it.
//
// A move is a state in the site database and nothing else: [Next] reads from one
// consistent [View] what comes next, or whom it waits for. [Move] does that
// until the end. It may be stopped anywhere and carried on by anybody, and several
// may run at once: every step is a compare-and-swap.
//
//	subscribe  every instance starts the new transports beside the old ones
//	await      until every open row has said that it receives on them
//	send-both  every instance sends on the old ones and the new ones
//	await      until every open row has said that it does, and has heard every other on the new ones
//	send-new   every instance sends on the new ones alone
//	await      until every open row has said that it does
//	end        of the old ones: the database's time plus the overlap
//	await      that time: what was on its way there has arrived, or was repaired
//	close      every instance closes the old ones
//	await      until every open row has said that it has
//
// So no event is ever sent on transports of which a receiver hears none, and what is given
// up carries nothing any more. [Abort] goes back in the same way, as long as the old ones are open.
package transports
