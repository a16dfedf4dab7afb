// Package waf is the WebRTC Authorization Function (TS 23.228 annex U): an OAuth 2.0
// authorization server that lets a user's browser register at the eP-CSCF and use the TURN
// relay, with what stands in the user's web account in place of IMS credentials.
//
// # The flow
//
//	    page (WIC)                          WAF                              relay
//	0                    registered: client, redirect URIs
//	                     client.go, register.go
//	1   knows client id
//	2   GET /authorize  ------------------->  authorize.go, request.go
//	    client_id, aud, scope, state, PKCE
//	3        <--- sign in, consent pages ---  signin.go, provider.go, consent.go
//	4   code by redirect  <-----------------  code.go
//	    POST /token  ---------------------->  token.go
//	    access token, key, kid  <-----------  issue.go
//	5   new RTCPeerConnection({iceServers})
//	6   Allocate with the token  ----------------------------------------->  RFC 7635
//
// With Config.AllowImplicit step 4 is one: token, key and kid stand in the fragment of the
// redirect (RFC 6749 §4.2, RFC 7635 Appendix B). RFC 9700 §2.1.2 advises against it, since a
// token in a URL is seen by scripts, histories and extensions.
//
// # What is issued
//
// The scope says what: "stun" is a TURN token, sealed for the relay that aud names, with its
// session key and an entry for iceServers; the scope of registration is a JWT (package
// waf/bearer). Where both are asked for, the JWT is the access_token, and "turn" beside it
// has the other.
//
// All that comes of one consent, or of one client_credentials request, is a grant, named in
// the registration token. Codes and refresh tokens serve once; a second use revokes the
// grant, and with it its tokens, at the edges and relays too.
//
// # What it does not do
//
// It is no OpenID provider: it makes no ID tokens. It signs users in by local accounts, or
// is itself the client of an operator's OpenID Connect provider. It opens no sockets.
package waf
