// Package bearer is the registration token between the WAF, which signs it, and the
// eP-CSCF, which must know whether to believe it (TS 33.203 X.3 and X.4, RFC 8898).
//
// The token is a JWT by RFC 9068, signed with EdDSA or ES256:
//
//	{"typ":"at+jwt","alg":"EdDSA","kid":"..."}
//	{"iss":WAF's URL, "aud":eP-CSCF, "exp", "iat", "jti", "sub", "client_id", "scope",   RFC 9068 §2.2
//	 "impi":..., "impus":[...], "wwsf":..., "waf":..., "grant":...}                      ours
//
// There are two ways to check one, with the same method Verify:
//
//   - [Offline] checks signature, issuer, audience and time by the WAF's public keys, from
//     [RemoteKeys] (a JWKS, RFC 7517) or from the WAF itself where it is in this process. It
//     cannot know of a revocation unless it is told: that is what [Revocations] is for.
//   - [Introspection] asks the WAF (RFC 7662) and remembers the answer for a short time.
//
// Nothing here knows SIP, HTTP headers or OAuth grants.
package bearer
