// Package stunkey carries the long-term keys of RFC 7635 from the WAF to relays on other
// hosts, by the well-known URI of its §4.1.1:
//
//	GET https://WAF/.well-known/stun-key?service=stun&name=turn1.example
//	{"k":"base64url","exp":1300819380,"kid":"k1","enc":"A256GCM"}
//
// Both sides show certificates of the deployment's own authority (turncred/push): a relay
// must have the role relay, and is given keys of the server names that it serves; the WAF
// must have the role waf. [Handler] is the WAF's side, to be served with push.ServerTLS on a
// listener of its own; [Client] is the relay's, which asks again before exp.
//
// A new key reaches the relays before anyone makes tokens with it: the WAF hands it out
// Lead ahead of its NotBefore, and relays ask more often than that.
package stunkey

import "time"

// Path is the well-known URI (RFC 7635 §12.1).
const Path = "/.well-known/stun-key"

// Lead is how long before its NotBefore a key is handed out.
const Lead = 15 * time.Minute

// askEvery is how often a relay asks, at least. A key that comes Lead ahead is found twice.
const askEvery = Lead / 3

// service is the only one (RFC 7635 §4.1.1; its example writes it so).
const service = "stun"

// wireKey is the answer of RFC 7635 §4.1.1.
type wireKey struct {
	K   string `json:"k"`   // base64url, unpadded (RFC 7518 §6.4.1)
	Exp int64  `json:"exp"` // no token is made with it from then on
	Kid string `json:"kid"`
	Enc string `json:"enc"`
}
