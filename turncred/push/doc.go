// Package push is approach 2 of TURN credential provisioning (the contribution to
// TR 33.872, 6.x.3): the edge makes a random password and sends the derived key to the
// TURN server before the 200 OK leaves.
//
//	Issuer --Put(Record)--> Sink            Table is a Sink and a turncred.Authenticator:
//	(edge)                  (relay)         in one process the edge writes straight into it
//
// Between hosts there is the credential interface, HTTP/2 with JSON over TLS 1.3 with a
// certificate of both sides; openapi.yaml describes it:
//
//	edge                                                      relay
//	Client --PUT    /turn-cred/v1/credentials/{tid}---------> Server --> Table, CredentialLog
//	       --DELETE /turn-cred/v1/credentials/{tid}---------> Server --> turncred.Revoker
//	       --DELETE /turn-cred/v1/subjects/{subject}--------> Server --> turncred.Revoker
//	       --POST   /turn-cred/v1/batch, PUT .../snapshot---> Server --> both
//	       <-GET    /turn-cred/v1/digest, GET .../events----- Server <-- Table, EventLog
//
// Who may write says the one URI in the subjectAltName of the certificate (Peer). A
// credential is written once; revocations only grow, and win whatever comes first. So
// there is no order to keep, no sequence and no lease: a credential is good until its Texp
// unless a revocation hits it.
//
// A Record holds keys, never the password.
package push
