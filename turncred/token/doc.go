// Package token makes and opens the self-contained access tokens of RFC 7635: an
// authorization server and a TURN server share a key K, and the token carries the session
// key (mac_key) with which its holder signs STUN requests, encrypted under K.
//
// An [Issuer] makes tokens, an [Authenticator] is the relay's side; both take the same
// [KeyRing]. Keys of other authorization servers stand in the ring too, marked Foreign.
// The package does not speak OAuth: how a token reaches its holder is another's business.
//
// # The token
//
// All numbers are big-endian. With a mac_key of 20 bytes it has 64 bytes, with one of 32
// it has 76; no other length is a token.
//
//	 0       2                 14
//	+-------+-----------------+---------------------------------+
//	| 12    | nonce           | AEAD ciphertext and tag         |   RFC 7635 §6.2
//	+-------+-----------------+---------------------------------+
//	                           |  A = STUN server name
//	 0       2                 v     2+n             10+n    14+n
//	+-------+-----------------------+---------------+-----------+
//	| n     | mac_key, n = 20 or 32 | timestamp     | lifetime  |
//	+-------+-----------------------+---------------+-----------+
//	                                 48 bits s, 16   seconds
//	                                 bits 1/64000 s
//
// The AEAD is AES-256-GCM under the first 32 bytes of K, or AES-128-GCM under its first
// 16, as in RFC 7635 Appendix A.
//
// # The session keys of our own tokens
//
// RFC 7635 has no field for the user. So that quota and revocation reach a token without
// any state, our mac_key is one AES-256 block under a key that HKDF-SHA256 (RFC 5869)
// derives from K with the label "subject", and four zero bytes:
//
//	 0                   8              13        16       20
//	+-------------------+--------------+---------+--------+
//	| subject           | issue time   | random  | 0      |
//	|                   | in 1/64 s    |         |        |
//	+-------------------+--------------+---------+--------+
//	 `--------------- encrypted --------------'
//
// Whoever lacks K sees 128 random bits. HMAC pads its key with zeros (RFC 2104 §2), so a
// client that signs with 16 bytes, as coturn's does, and one that signs with all 20 make
// the same MESSAGE-INTEGRITY.
//
// # In a USERNAME
//
// No browser sends ACCESS-TOKEN. A relay of ours takes the same token in
//
//	USERNAME = kid "~" base64url(token), unpadded      password = base64(mac_key)
//
// with the long-term credential mechanism (RFC 8489 §9.2).
package token
