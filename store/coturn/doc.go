// Package coturn has a coturn for a relay: it writes credentials where coturn reads them,
// and ends sessions through coturn's admin interface.
//
//	push.Record ----Put----> turnusers_lt (realm, name, hmackey)   approach 2; lt-cred-mech
//	keys Km --SetSecrets---> turn_secret (realm, value)            approach 1; use-auth-secret
//	Revocation --Revoke----> rows deleted, then "cs SESSION" at the admin interface
//
// coturn looks a user up at each Allocate, so a row works, or works no more, from the moment
// that it is written. Beside coturn's own tables stand three of ours, in the same database:
// epcscf_turn_users says whose the rows are and until when, since turnusers_lt has no expiry,
// epcscf_turn_revocations has what a late write must not bring back, and epcscf_turn_secrets
// which rows of turn_secret are ours.
//
// # What coturn cannot do
//
//   - It keeps the key of a live session and never asks again: a session goes on, refreshed,
//     past its credential's expiry. Only the admin interface ends one.
//   - Its admin interface is telnet with one password, in clear: keep it on loopback or on a
//     network of its own. It lists cli-max-output-sessions users at most; set that above the
//     number of sessions, or a revocation by user may miss some.
//   - Between a revocation and its session's end an Allocate that coturn was answering may
//     still succeed, so sessions are looked for twice.
//   - It knows no binding, no quota of ours, no SHA-256.
package coturn
