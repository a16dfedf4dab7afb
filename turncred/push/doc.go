// Package push is approach 2 of TURN credential provisioning (the contribution to
// TR 33.872, 6.x.3): the edge makes a random password and sends the derived key to the
// TURN server before the 200 OK leaves.
//
//	Issuer --Put(Record)--> Sink            Table is a Sink and a turncred.Authenticator:
//	(edge)                  (relay)         in one process the edge writes straight into it
//
// A Record holds keys, never the password.
package push
