// Package relay is a TURN server (RFC 8656) that knows the life of the credentials it
// accepts: which user an allocation belongs to, until when, and ended now where the edge
// takes a credential back. It answers UDP, TCP and TLS, and relays UDP.
//
// Credentials are of the long-term mechanism (RFC 8489 §9.2), or access tokens (RFC 7635,
// Config.Tokens), whose holders may renew a live allocation with another token.
//
// It does not do: TCP relaying (RFC 6062), DTLS to clients, mobility, redirection, and ICMP
// to clients (RFC 8656 §11.5).
//
// # The path of a message
//
//	ServeUDP, ServeTCP, ServeTLS      listener_*.go, stream.go   one reader a socket or stream
//	worker.handle                     worker.go                  the first byte tells STUN from ChannelData
//	 |-- ChannelData, Send            datapath.go, indication.go no lock shared by all, no allocation of memory
//	 `-- request                      request.go                 control path
//	      authenticate                authenticate.go            RFC 8489 §9.2.4, RFC 7635 §7
//	      allocate.go, refresh.go, permission.go, channel.go    RFC 8656, step by step
//	relayLoop                         datapath.go                one reader a relayed socket, peer to client
//
// The control path writes two tables, client five-tuple to allocation and relayed address
// to allocation (flowtable.go), and each allocation's paths (paths.go): permissions and
// channels. The data path only reads them.
//
// What becomes of an allocation goes through one queue to metrics, log and Config.Events
// (event.go). A revocation holds at once (revoke.go), and succeeds when Config.Revocations
// would have it after a crash too (revocationlog.go). Where edges are other processes, their
// silence bounds how long an allocation outlives its credential (edgecontact.go).
//
// On Linux a UDP listener has a carrier, and ServeUDP and relayLoop read only what carriers
// cannot: sockets that are no *net.UDPConn, and relayed sockets of clients on streams.
//
//	carrier.pass                      carrier_linux.go           one listener and the relayed sockets of its allocations
//	 |-- fromClients                  inbox_linux.go             recvmmsg; worker.handle for each; data to the outbox
//	 |-- fromPeers                    lane_linux.go              the same for each relayed socket that has something
//	 |-- flushPeers, flushClients     outbox_linux.go            sendmmsg for each socket, UDP_SEGMENT for runs of one size
//	team.round                        crew_linux.go              who works for which carrier, and rests in between
//
// Under load a round is followed by a rest of 250 us, in which datagrams gather: fewer
// wake-ups for the same packets. Several listeners of one address (ListenUDP) share all
// allocations; while there is little to do, one thread works for all.
//
// # Formats
//
// ChannelData (RFC 8656 §12.4), padded to four bytes on streams only:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------------------------------+-------------------------------+
//	|  channel, from 0x4000 up      |   length of the data          |
//	+-------------------------------+-------------------------------+
//	|  data ...                                                     |
//
// A nonce is the cookie of RFC 8489 §9.2, and base64url over a time and a MAC that binds it
// to its source (nonce.go):
//
//	                   0            6                                    22
//	"obMatJos2AAAB" + +------------+-------------------------------------+
//	                  | Unix ms    | HMAC-SHA256(time, transport, ip, port)[:16]
//	                  +------------+-------------------------------------+
package relay
