// Package turncred is the vocabulary that the SIP edge and the TURN relay share:
// what a TURN credential is, who may make one, who may check one, and how one is
// taken back. It opens no sockets and knows neither SIP nor STUN.
//
// The edge holds a [Provisioner], the relay an [Authenticator] and is itself a
// [Revoker]. The approaches are sub-packages: turncred/sharedkey (approach 1,
// TS 33.203 X.5.2), turncred/push (approach 2) and turncred/token (RFC 7635, whose tokens
// X.5.3 gives out).
//
// # The credential identifier
//
// A Tid never names the user and never repeats. It is
//
//	Tid = kid "-" 22*22base64url
//
// where the 22 characters are one AES-256 block over
//
//	 0                   8              13      15  16
//	+-------------------+--------------+-------+---+
//	| subject           | issue time   | bind- | c |
//	| HMAC(IMPI)[:8]    | in 1/64 s    | ing   | t |
//	+-------------------+--------------+-------+---+
//
// A relay that shares the deployment secret reads subject, issue time and binding
// back, after MESSAGE-INTEGRITY has held and not before; for everyone else the
// Tid is opaque and two Tids of a user cannot be linked.
package turncred
