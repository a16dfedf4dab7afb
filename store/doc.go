// Package store is what edges, relays and the WAF keep beyond a restart: the records, one
// small interface for each kind of them, and the encryption of what is secret in them.
//
//	memory     one process, gone with it: the demo and tests
//	bolt       one file, synced before an answer that promises it: one node
//	postgres   many nodes, through pgx and the numbered SQL of package migrations
//	wal        a relay's write path: a log that is synced once for all who wait
//
// All of them pass the suite of store/storetest. An error is one of this package's sentinels
// wherever a caller would branch on it.
//
// # What is secret, and how it lies there
//
// No password is stored. The keys of a TURN credential (RFC 8489 §9.2.2) and the keys of the
// key ring are sealed, each row under a key of its own:
//
//	row key = HKDF-Expand(PRK of the KEK, "epcscf store" | salt | table | row id)     RFC 5869
//	sealed  = salt (16) | AES-256-GCM(row key, nonce 0, secret; the clear columns)
//
// The salt is random and new with each sealing, so a row key seals once and its nonce may be
// zero. The clear columns are associated data: a row whose expiry or subject was edited, or
// that took another's place, does not open. Each row names its key-encryption key, the KEK,
// so that it can be rotated: new rows are sealed under the new one, Reseal moves the old.
// A KEK comes from a file or a systemd credential and is never in the store.
package store
