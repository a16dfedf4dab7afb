// Package proxy is the SIP edge of an eP-CSCF (TS 23.228 Annex U): browsers (WICs) reach
// it by SIP over secure WebSocket (RFC 7118), the IMS core by SIP over UDP, TCP or TLS. It
// registers them, routes their requests both ways, keeps the trust boundary, and puts a
// TURN credential on the 200 to REGISTER and to OPTIONS (TS 33.203 X.5.2).
//
// It knows no relay and no core: credentials come from a turncred.Provisioner, sockets
// are handed in. What it does not do is in the README's table of specifications.
//
// # The path of a request
//
//	ServeHTTP        upgrade.go      TLS, Origin, subprotocol, limits
//	Flow.serve       flowread.go     one WebSocket message is one SIP message; an idle flow is parked
//	Proxy.receive    receive.go      sipext.Scan checks it and types its rows
//	Proxy.dispatch   dispatch.go     to its transaction, or to one of:
//	 register        register.go     to the core with Path; 200: Registration, credential
//	  byToken        bearer*.go      of a WIC that shows an access token in place of Digest
//	  registering    registering.go  its transactions, and the next hop where one fails
//	 request         dispatch.go     sipgo's parser sees only what Scan understood, its
//	                                 transactions do the rest
//	 options         options.go      answered here, with the credential, where it is for us
//	 fromWIC         route.go        Service-Route, P-Asserted-Identity, Record-Route
//	 toWIC           route.go        by flow token only, never by DNS
//	 dialogTable     dialog*.go      who takes part in which dialog, by which route
//	relay            relay.go        responses back, forking 2xx, CANCEL, Timer C
//	 release         release.go      BYE and CANCEL for calls whose flow is lost
//	toCore           failover.go     to the next hop, and to another where that one fails
//	 hopSet          hopset.go       the core's addresses by DNS (resolve.go), and their health
//	coreLink         core.go         UDP, TCP and TLS to the core, behind sip.Connection
//
// A request is checked, rewritten and sent in the goroutine that read it, so requests of
// one flow keep their order; a goroutine of its own then waits for the responses. REGISTER,
// which is nearly all that an edge hears, goes without: its rows are checked, stripped, added
// to and written in the form in which they were scanned, and its answer is passed on by who
// reads the core (registering.go).
//
// # Flow tokens
//
// A flow token (RFC 5626 §5.2) is
//
//	base64url( epoch (8) | flow (8) | HMAC-SHA256(key, epoch | flow)[:16] )
//
// epoch is random in each process and flow counts up, so a token means one connection and
// never a later one from the same address. It stands in the user part of Path and of the
// Record-Route entry that faces the WIC:
//
//	Path:         <sip:TOKEN@edge:5060;lr;ob>
//	Record-Route: <sip:edge:5060;lr>, <sip:TOKEN@edge:5060;transport=ws;lr>
//
// # What is used of sipgo
//
// Messages, parser and transaction state machines, but for REGISTER. Not used: its transaction layer (keys
// that collide between flows, a goroutine per response), its WebSocket transport (no Origin
// check, the handshake blocks the accept loop), its transport layer (see coreLink) and its
// request helpers (a Max-Forwards of 0 becomes 4294967295).
//
// # Registrations
//
// A 2xx to REGISTER makes a Registration on the flow (register.go, registration.go): the
// implicit set, Service-Route, charging addresses, expiry. Which one speaks for a device is
// known across flows (bindingTable), so a device that comes back on a new flow leaves the
// old one and keeps its credentials. What ends a registration takes them back (revoke.go):
// the user, its expiry, a lost flow after its grace, or the core, whose reg event package
// the edge subscribes to (regevent.go, regsubscribe.go, regnotify.go, reginfo.go). What
// crosses between UE and core is one table (trust.go); what the core is told of a
// REGISTER's protection, and who it claims to be, is in security.go; what is asserted of a
// user, in identity.go.
//
// A WIC may show an access token in place of Digest (TS 33.203 X.3, X.4; RFC 8898): bearer.go
// says how. The registration stands on the token then, ends with it, and with its revocation.
//
// # Dialogs
//
// A dialog of a WIC is known by Call-ID and both tags (dialog.go). It is made by a response,
// before the next message of that peer is read (dialogwatch.go), and ends with BYE, failure,
// the last NOTIFY, or its time. A request within a dialog needs no registration, but must be
// a participant's: 481 where there is no such dialog, 403 where it is another's. A dialog
// belongs to the flow that its route set names, or to the flow on which the same device has
// registered since. An idle flow has none of this state.
package proxy
