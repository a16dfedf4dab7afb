package config

import (
	"net/netip"
	"time"

	"epcscf/cmd/internal/node"
	"epcscf/proxy"
	"epcscf/relay"
	"epcscf/turncred"
	"epcscf/turncred/sharedkey"
)

// section is a mapping of the file; its keys follow it in the table.
type section struct{ name, doc string }

// sections in the order of the printed file.
var sections = []section{
	{"turn", "The TURN credentials that WICs get."},
	{relaysKey, "Relays in processes of their own, in place of the one in this process; each an item as below."},
	{"turn.interface", "This edge at the credential interface, for turn.relays and for WAFs elsewhere. epcscf pki makes its certificates."},
	{"keys", "The keys Km of approach shared-key, the TURN server's too. A list: a new key is there before its not_before, an old one stays until its last credential has expired. Takes effect on SIGHUP."},
	{"tokens", "Access tokens (RFC 7635) that the relay takes, in ACCESS-TOKEN and in user names."},
	{"tokens.keys", "The keys that authorization servers seal tokens with; each an item as below. Takes effect on SIGHUP."},
	{"proxy", "The edge, toward the WICs."},
	{"proxy.tls", "The certificate for wss. Files that change are read again, without a drop."},
	{"proxy.limits", "What peers can make grow."},
	{"proxy.bearer", "Registration by access token in place of SIP Digest (TS 33.203 X.3, X.4; RFC 8898). On where its issuer is set, or waf.enabled."},
	{"proxy.proxy_protocol", "Balancers before the edge."},
	{"core", "The IMS core."},
	{"core.tls", "The core over TLS, in both directions: either end shows a certificate. On where ca_file is set."},
	{"relay", "The TURN relay of this process."},
	{"relay.listen", "Where clients reach the relay: each one address, or a list."},
	{"relay.tls", "The certificate for turns."},
	{"waf", "The OAuth authorization server, at which pages sign their users in. epcscf waf adds clients and users."},
	{"waf.tls", "Its certificate."},
	{"waf.provider", "An operator's OpenID Connect provider, beside the local accounts. On where its issuer is set."},
	{"waf.interface", "The WAF at the credential interface: relays fetch token keys there, and those of waf.nodes hear of revocations. On where its name is set. epcscf pki makes its certificates."},
	{wafNodesKey, "Relays and edges in other processes, which take this WAF's tokens; each an item as below."},
	{"store", "What is kept beyond a restart. A bolt or postgres store has a key ring, whose keys are taken beside those of keys and tokens.keys, as it changes: epcscf keys."},
	{"admin", "Metrics and health."},
	{"log", "The log, on standard error."},
}

// key is one key of the file.
type key struct {
	name    string // with its sections: proxy.limits.flows
	value   string // the default, or where must or sample says so an example; "" of a list is []
	kind    keyKind
	onHUP   bool   // SIGHUP takes a change; else a restart does
	doc     string // one line
	set     setter
	missing string // of a sample: what its absence means
}

type keyKind int

const (
	plain  keyKind = iota // value is the default
	must                  // has no default; value is an example
	sample                // has another default, which missing tells; value is an example
)

// keyList is a list of keys, a section whose items have keys of their own.
type keyList struct {
	name  string
	off   bool // by default there is none
	items []itemKey
	to    func(*File) *[]keyItem // of keys
	read  setter                 // of anything else
	fixed bool                   // a change waits for a restart
}

// relaysKey is the list of relays in processes of their own.
const relaysKey = "turn.relays"

// itemKey is a key of an item.
type itemKey struct{ name, value, doc string }

// validity are the last keys of every item.
var validity = []itemKey{
	{"not_before", `""`, `Not signed with before, such as 2026-01-01T00:00:00Z; "" is always.`},
	{"not_after", `""`, `Not signed with from then on; "" is never.`},
}

// keyLists are the sections that are lists of keys.
var keyLists = []keyList{
	{"keys", false, append([]itemKey{
		{"kid", "k1", "The key's name, up to 16 letters and digits; it stands in each user name."},
		{"file", "secrets/k1.key", "The key in a file of mode 0600, 32 bytes or more: openssl rand -hex 32. For coturn, its static-auth-secret."},
	}, validity...), func(f *File) *[]keyItem { return &f.keys }, nil, false},
	{"tokens.keys", true, append([]itemKey{
		{"kid", "t1", "The key's name, up to 16 letters and digits; a client gives it as its user name."},
		{"file", "secrets/t1.key", "The key in base64, in a file of mode 0600: openssl rand -base64 32. For coturn, its ikm_key."},
		{"algorithm", "A256GCM", "A256GCM (32 bytes) or A128GCM (16)."},
		{"foreign", "false", "true: another authorization server makes the tokens; then quota is by token, and revocation by kid."},
	}, validity...), func(f *File) *[]keyItem { return &f.tokenKeys }, nil, false},
	{relaysKey, true, relayItems, nil, setRelays, false},
	{wafNodesKey, true, wafNodeItems, nil, setWAFNodes, true},
}

const day = 24 * time.Hour

// table has all keys but those of an item of keys, in the order of the
// printed file.
var table = []key{
	{name: "turn.approach", value: "shared-key", onHUP: true, doc: "How credentials come about: shared-key (computed from a key that the TURN server has too) or push (given to the relay). --turn-approach wins over it.",
		set: choice(func(f *File) *turncred.Approach { return &f.node.TURN.Approach }, turncred.ApproachSharedKey, turncred.ApproachPush)},
	{name: "turn.offer", value: "on-request", doc: "Who gets one: a WIC that asks (on-request), or each that registers (always).",
		set: choice(func(f *File) *proxy.Offer { return &f.node.Proxy.Offer }, proxy.OfferOnRequest, proxy.OfferAlways)},
	{name: "turn.max_ttl", value: "1h", doc: "Longest life of a credential; a registration that ends sooner ends it sooner. 5s to 24h.",
		set: ttl},
	{name: "turn.require_authorization", value: "true", doc: "Only a registration that the core has authenticated gets one. false opens the relay to whomever the core lets in by address alone.",
		set: boolean(func(f *File) *bool { return &f.requireAuthorization })},
	{name: "turn.username_order", value: "3gpp", doc: "User name Tid:Texp (3gpp), or Texp:Tid (rest) for TURN servers that know no other.",
		set: choice(func(f *File) *turncred.UsernameOrder { return &f.node.TURN.Order }, turncred.Order3GPP, turncred.OrderREST)},
	{name: "turn.password_hash", value: "hmac-sha1", doc: "How approach shared-key makes a password of its key: hmac-sha1, or hmac-sha256 where no other TURN server must know it. A change refuses what was made before.",
		set: choice(func(f *File) *sharedkey.Algorithm { return &f.node.TURN.Hash }, sharedkey.HMACSHA1, sharedkey.HMACSHA256)},
	{name: "turn.realm", value: "ims.example", kind: sample, missing: "proxy.domain", doc: "The realm of TURN.",
		set: domain(func(f *File) *string { return (*string)(&f.node.TURN.Realm) })},
	{name: "turn.uris", doc: "TURN URIs for WICs, turns: first. Empty: what relay.listen and relay.public_name make of it.",
		set: each(parseTURNURI, func(f *File) *[]string { return &f.node.TURN.URIs })},
	{name: "turn.deployment_secret_file", value: "secrets/deployment.key", kind: must, doc: "Secret of the user names, the same at all edges and relays, in a file of mode 0600, 32 bytes or more: openssl rand -hex 32.",
		set: text("a file name", func(f *File) *string { return &f.deploymentSecret })},

	{name: "turn.registry", value: "false", doc: "Take relays from the registry of a store of kind postgres too, as it changes: epcscf relays adds, drains and removes them.",
		set: boolean(func(f *File) *bool { return &f.registry })},
	{name: "turn.spare", value: "0", doc: "How many of turn.relays beyond the chosen one get each credential, and stand in its URIs.",
		set: integer(0, 16, func(f *File) *int { return &f.fleet.Spare })},
	{name: "turn.region", value: `""`, doc: "Where this edge is: of turn.relays, those of the same region come first.",
		set: text("a name", func(f *File) *string { return &f.fleet.Region })},

	{name: "turn.interface.name", value: `""`, doc: "This edge's name, as its certificate has it: small letters, digits and hyphens, such as edge1.",
		set: text("a name", func(f *File) *string { return &f.place.Name })},
	{name: "turn.interface.domain", value: "ims.example", kind: sample, missing: "proxy.domain", doc: "The deployment's domain, as all certificates have it.",
		set: domain(func(f *File) *string { return &f.place.Domain })},
	{name: "turn.interface.cert_file", value: `""`, doc: "Its certificate and the chain, PEM, such as pki/edge-edge1.pem. A file that changes is read again, without a drop.",
		set: text("a file name", func(f *File) *string { return &f.interfaceTLS.cert })},
	{name: "turn.interface.key_file", value: `""`, doc: "The key, PEM, readable by this user, or by its group, only.",
		set: text("a file name", func(f *File) *string { return &f.interfaceTLS.key })},
	{name: "turn.interface.ca_file", value: `""`, doc: "The authorities of the relays' certificates, PEM. While they change, list old and new.",
		set: text("a file name", func(f *File) *string { return &f.interfaceCA })},
	{name: "turn.interface.listen", value: `""`, doc: "Where WAFs on other hosts tell this edge of revoked tokens, an address of the inner network: IP:PORT. Empty: nowhere.",
		set: maybeAddress(func(f *File) *node.Address { return &f.hearing.Listen })},
	{name: "turn.interface.state_dir", value: "state", doc: "Keeps what this edge was told, and revocations that a relay has yet to hear, over a restart; made if missing.",
		set: text("a directory", func(f *File) *string { return &f.place.StateDir })},

	{name: "tokens.server_name", value: `""`, doc: "By what name authorization servers make tokens for this relay, such as turn.ims.example; coturn's server-name. Empty: no tokens are taken.",
		set: text("a name", func(f *File) *string { return &f.node.TURN.Tokens.ServerName })},
	{name: "tokens.max_lifetime", value: "1h", doc: "Longest lifetime that a token may have.",
		set: duration(time.Second, day, func(f *File) *time.Duration { return &f.node.TURN.Tokens.MaxLifetime })},

	{name: "proxy.domain", value: "ims.example", kind: must, doc: "The home domain.",
		set: domain(func(f *File) *string { return &f.node.Proxy.Domain })},
	{name: "proxy.visited_network", value: "ims.example", kind: sample, missing: "proxy.domain", doc: "What P-Visited-Network-ID says.",
		set: domain(func(f *File) *string { return &f.node.Proxy.VisitedNetwork })},
	{name: "proxy.listen", value: "203.0.113.5:443", kind: must, doc: "Where WICs connect (wss, at / and /ws): one IP:PORT, or a list.",
		set: each(parseAddress, func(f *File) *[]node.Address { return &f.node.Listen })},
	{name: "proxy.origins", value: "https://phone.ims.example", kind: sample, missing: "none, which wants allow_no_origin", doc: "Web origins whose pages may connect, exactly as browsers send them: one, or a list.",
		set: each(parseOrigin, func(f *File) *[]string { return &f.node.Proxy.Origins })},
	{name: "proxy.allow_no_origin", value: "false", doc: "Admit clients that send no Origin, as native ones do. A browser always sends one.",
		set: boolean(func(f *File) *bool { return &f.node.Proxy.AllowNoOrigin })},
	{name: "proxy.page", value: "false", doc: "Serve the page of the demo too, at /, to try things out. Its origin must be listed.",
		set: boolean(func(f *File) *bool { return &f.Page })},
	{name: "proxy.access_network", value: "Internet", doc: "What P-Access-Network-Info says of a WIC whose REGISTER has no Authorization: an access type or class (RFC 7315 5.4).",
		set: accessNetwork},
	{name: "proxy.route_mismatch", value: "replace", doc: "A request whose Route is not its Service-Route: replace it, as for clients that leave it out, or reject the request.",
		set: choice(func(f *File) *proxy.RouteMismatch { return &f.node.Proxy.RouteMismatch }, proxy.RouteReplace, proxy.RouteReject)},
	{name: "proxy.emergency_route", value: `""`, doc: "Where calls to urn:service:sos go, from WICs that have not registered too: as in core.next_hops; empty: they are refused.",
		set: emergencyRoute},
	{name: "proxy.reg_event", value: "true", doc: "Subscribe to each user's registration state, so that the core can end a registration (RFC 3680). Where the core refuses, the registration stands.",
		set: boolean(func(f *File) *bool { return &f.node.Proxy.RegEvent })},
	{name: "proxy.flow_grace", value: "2m", doc: "How long a lost connection's calls go on and its credentials stay good, so that a client may reconnect.",
		set: duration(time.Second, time.Hour, func(f *File) *time.Duration { return &f.node.Proxy.FlowGrace })},
	{name: "proxy.flow_key_file", value: `""`, doc: "Secret of the flow tokens, in a file of mode 0600, the same at all edges behind one name: an edge answers 430 for a flow that another, or an earlier process, held. Empty: random at each start.",
		set: text("a file name", func(f *File) *string { return &f.flowKey })},
	{name: "proxy.token_every_request", value: "false", doc: "Want a token in each request of a WIC that has registered with one (407 without), but for ACK, CANCEL and emergency calls. false: a token is checked where one is sent.",
		set: boolean(func(f *File) *bool { return &f.bearer.EveryRequest })},
	{name: "proxy.close_on_bad_token", value: "false", doc: "Close the WebSocket after a REGISTER with a bad token, as TS 33.203 X.3.2.3 has it. false: a page can come with another.",
		set: boolean(func(f *File) *bool { return &f.bearer.CloseOnBad })},
	{name: "proxy.bearer.issuer", value: `""`, doc: "The WAF, as its tokens name it, such as https://login.ims.example. Empty with waf.enabled: that of this process, which knows the rest.",
		set: text("an https URL", func(f *File) *string { return &f.bearer.Expected.Issuer })},
	{name: "proxy.bearer.audience", value: "sip:ims.example", kind: sample, missing: "sip: and proxy.domain", doc: "Who tokens for this edge are for.",
		set: text("an audience", func(f *File) *string { return &f.bearer.Expected.Audience })},
	{name: "proxy.bearer.scope", value: "webrtc-ims-client-access-to-ims", doc: "What a token must allow.",
		set: text("a scope", func(f *File) *string { return &f.bearer.Expected.Scope })},
	{name: "proxy.bearer.authz_server", value: "https://login.ims.example", kind: sample, missing: "proxy.bearer.issuer", doc: "Where a challenge sends a WIC for a token.",
		set: text("an https URL", func(f *File) *string { return &f.bearer.AuthzServer })},
	{name: "proxy.bearer.jwks_url", value: `""`, doc: "Where the WAF publishes its keys, https. Tokens are checked by them here; of a revocation the edge learns only from a WAF of its own process.",
		set: text("an https URL", func(f *File) *string { return &f.bearer.JWKSURL })},
	{name: "proxy.bearer.jwks_file", value: `""`, doc: "The keys in a file instead.",
		set: text("a file name", func(f *File) *string { return &f.bearerKeys })},
	{name: "proxy.bearer.introspection_url", value: `""`, doc: "Or where the WAF tells of a token (RFC 7662), https: it is asked, once a second for each token at most.",
		set: text("an https URL", func(f *File) *string { return &f.bearer.IntrospectionURL })},
	{name: "proxy.bearer.client_id", value: `""`, doc: "As which client it is asked.",
		set: text("a client id", func(f *File) *string { return &f.bearer.ClientID })},
	{name: "proxy.bearer.client_secret_file", value: `""`, doc: "That client's secret, in a file of mode 0600.",
		set: text("a file name", func(f *File) *string { return &f.bearerSecret })},
	{name: "proxy.bearer.ca_file", value: `""`, doc: "Whose certificate the WAF has at these URLs, PEM; empty: the system's authorities.",
		set: text("a file name", func(f *File) *string { return &f.bearerCA })},
	{name: "proxy.tls.cert_file", value: "tls/proxy.pem", kind: must, doc: "The certificate and its chain, PEM.",
		set: text("a file name", func(f *File) *string { return &f.proxyTLS.cert })},
	{name: "proxy.tls.key_file", value: "tls/proxy.key", kind: must, doc: "Its key, PEM, readable by this user, or by its group, only.",
		set: text("a file name", func(f *File) *string { return &f.proxyTLS.key })},
	{name: "proxy.proxy_protocol.trusted", doc: "Balancers that say by PROXY protocol v2 whom they speak for, and must: addresses or ranges. From anybody else it is no greeting and the connection fails.",
		set: each(parsePrefix, func(f *File) *[]netip.Prefix { return &f.node.Balancers })},
	{name: "proxy.limits.message_size", value: "65536", doc: "Bytes of a SIP message.",
		set: integer(1<<10, 1<<20, func(f *File) *int64 { return &f.node.Proxy.Limits.MessageSize })},
	{name: "proxy.limits.headers", value: "128", doc: "Header rows of a message.",
		set: integer(16, 1024, func(f *File) *int { return &f.node.Proxy.Limits.Headers })},
	{name: "proxy.limits.line", value: "8192", doc: "Bytes of one header field.",
		set: integer(256, 65536, func(f *File) *int { return &f.node.Proxy.Limits.Line })},
	{name: "proxy.limits.flows", value: "20000", doc: "Live connections.",
		set: integer(1, 10_000_000, func(f *File) *int { return &f.node.Proxy.Limits.Flows })},
	{name: "proxy.limits.flows_per_address", value: "200", doc: "Live connections of one IPv4 address or IPv6 /64; 0: no limit.",
		set: unlimited(1_000_000, func(f *File) *int { return &f.node.Proxy.Limits.FlowsPerAddress })},
	{name: "proxy.limits.queue", value: "64", doc: "Messages that wait for a slow WIC before its connection is closed.",
		set: integer(1, 65536, func(f *File) *int { return &f.node.Proxy.Limits.Queue })},
	{name: "proxy.limits.transactions", value: "64", doc: "Unanswered requests of one connection.",
		set: integer(1, 65536, func(f *File) *int { return &f.node.Proxy.Limits.Transactions })},
	{name: "proxy.limits.bindings", value: "8", doc: "Registrations of one connection.",
		set: integer(1, 1024, func(f *File) *int { return &f.node.Proxy.Limits.Bindings })},
	{name: "proxy.limits.dialogs", value: "64", doc: "Dialogs of one connection.",
		set: integer(1, 65536, func(f *File) *int { return &f.node.Proxy.Limits.Dialogs })},
	{name: "proxy.limits.rate", value: "50", doc: "Requests a second of one connection; 0: no limit.",
		set: unlimited(1_000_000, func(f *File) *int { return &f.node.Proxy.Limits.Rate })},
	{name: "proxy.limits.burst", value: "100", doc: "Requests of one connection at once.",
		set: integer(1, 1_000_000, func(f *File) *int { return &f.node.Proxy.Limits.Burst })},
	{name: "proxy.limits.register", value: "30s", doc: "From the upgrade to the first REGISTER.",
		set: duration(time.Second, time.Hour, func(f *File) *time.Duration { return &f.node.Proxy.Limits.Register })},
	{name: "proxy.limits.ping", value: "25s", doc: "Between WebSocket pings: below the 30 s of common NATs and balancers.",
		set: duration(time.Second, time.Hour, func(f *File) *time.Duration { return &f.node.Proxy.Limits.Ping })},
	{name: "proxy.limits.write", value: "10s", doc: "For one message to a WIC.",
		set: duration(time.Second, time.Minute, func(f *File) *time.Duration { return &f.node.Proxy.Limits.Write })},
	{name: "proxy.limits.read", value: "10s", doc: "For one message of a WIC, from its first octet.",
		set: duration(time.Second, time.Minute, func(f *File) *time.Duration { return &f.node.Proxy.Limits.Read })},
	{name: "proxy.limits.answer", value: "128s", doc: "For a WIC to answer a request that is no INVITE: 64 times the T1 of TS 24.229.",
		set: duration(time.Second, 10*time.Minute, func(f *File) *time.Duration { return &f.node.Proxy.Limits.Answer })},
	{name: "proxy.limits.timer_c", value: "185s", doc: "For an INVITE that rings; above 3 minutes (RFC 3261 16.6).",
		set: duration(181*time.Second, time.Hour, func(f *File) *time.Duration { return &f.node.Proxy.Limits.TimerC })},

	{name: "core.listen", value: "10.0.0.5:5060", kind: must, doc: "Where the core reaches this edge, UDP and TCP: stands in Via, Path and Record-Route.",
		set: address(func(f *File) *node.Address { return &f.node.Core })},
	{name: "core.host", value: `""`, doc: "Stands there in place of the address, where the core resolves it.",
		set: domain(func(f *File) *string { return &f.node.Proxy.CoreHost })},
	{name: "core.next_hops", value: "udp:10.0.0.10:5060", kind: must, doc: "The core, I-CSCFs or outbound proxies before them, tried in this order: udp:HOST:PORT, tcp:HOST:PORT, tls:HOST:PORT, or sip:DOMAIN for what DNS says (RFC 3263). One, or a list.",
		set: each(parseNextHop, func(f *File) *[]proxy.NextHop { return &f.node.Proxy.NextHops })},
	{name: "core.follow_service_route", value: "true", doc: "Send a WIC's requests to the host on top of its Service-Route (RFC 3608), as a P-CSCF does. false: to next_hops, which must follow Route itself.",
		set: boolean(func(f *File) *bool { return &f.node.Proxy.Core.FollowServiceRoute })},
	{name: "core.failover", value: "4s", doc: "How long a next hop may be silent before a request goes to the next one too.",
		set: duration(100*time.Millisecond, time.Minute, func(f *File) *time.Duration { return &f.node.Proxy.Core.Failover })},
	{name: "core.timeout", value: "30s", doc: "When a request other than INVITE is given up, and a REGISTER gets 504.",
		set: duration(time.Second, 5*time.Minute, func(f *File) *time.Duration { return &f.node.Proxy.Core.Timeout })},
	{name: "core.probe", value: "10s", doc: "Between OPTIONS to a next hop that is silent otherwise; 0s: none.",
		set: probe},
	{name: "core.aside", value: "10s", doc: "How long a dead next hop is left alone before it is tried again.",
		set: duration(time.Second, time.Hour, func(f *File) *time.Duration { return &f.node.Proxy.Core.Aside })},
	{name: "core.nameservers", doc: "Asked in place of those of /etc/resolv.conf: one IP:PORT, or a list.",
		set: each(parseServer, func(f *File) *[]netip.AddrPort { return &f.node.Proxy.Core.Nameservers })},
	{name: "core.refresh", value: "30s", doc: "How long what DNS said is taken for true; longer where DNS does not answer.",
		set: duration(time.Second, day, func(f *File) *time.Duration { return &f.node.Proxy.Core.Refresh })},

	{name: "core.tls.ca_file", value: `""`, doc: "The authorities of the core's certificates, PEM; whoever has one of theirs is believed to be the core. Empty: no TLS.",
		set: text("a file name", func(f *File) *string { return &f.coreCA })},
	{name: "core.tls.cert_file", value: `""`, doc: "Our certificate and its chain, PEM.",
		set: text("a file name", func(f *File) *string { return &f.coreTLS.cert })},
	{name: "core.tls.key_file", value: `""`, doc: "Its key, PEM, readable by this user, or by its group, only.",
		set: text("a file name", func(f *File) *string { return &f.coreTLS.key })},
	{name: "core.tls.port", value: "5061", doc: "Where the core reaches this edge over TLS, at the address of core.listen.",
		set: integer(1, 65535, func(f *File) *uint16 { return &f.coreTLSPort })},

	{name: "relay.enabled", value: "true", doc: "false: a TURN server that is not ours, as coturn, serves turn.uris; then only shared-key works, and a revocation reaches nobody.",
		set: boolean(func(f *File) *bool { return &f.relayOn })},
	{name: "relay.public_name", value: "turn.ims.example", kind: sample, missing: "the listeners' addresses", doc: "Stands in the URIs that WICs get; relay.tls must have it in its certificate.",
		set: domain(func(f *File) *string { return &f.relay.PublicName })},
	{name: "relay.relay_address", value: "203.0.113.6", kind: sample, missing: "the first of relay.listen", doc: "The address of this host on which relayed sockets are opened.",
		set: ipAddress(func(f *File) *netip.Addr { return &f.relay.Settings.RelayIP })},
	{name: "relay.relay_address6", value: `""`, doc: "An IPv6 address beside a relay_address of IPv4, for clients that ask for IPv6 or for both.",
		set: ipAddress(func(f *File) *netip.Addr { return &f.relay.Settings.RelayIP6 })},
	{name: "relay.external_address", value: `""`, doc: "Given out in place of relay_address, where a NAT maps one to the other 1:1.",
		set: ipAddress(func(f *File) *netip.Addr { return &f.relay.Settings.ExternalIP })},
	{name: "relay.min_port", value: "49152", doc: "Lowest relayed port.",
		set: integer(1024, 65535, func(f *File) *uint16 { return &f.relay.Settings.MinPort })},
	{name: "relay.max_port", value: "65535", doc: "Highest relayed port.",
		set: integer(1024, 65535, func(f *File) *uint16 { return &f.relay.Settings.MaxPort })},
	{name: "relay.allow_peers", doc: "Ranges that are opened though they are not the public Internet, such as a media gateway's 10.1.0.0/24.",
		set: each(parsePrefix, func(f *File) *[]netip.Prefix { return &f.relay.Settings.AllowPeers })},
	{name: "relay.deny_peers", doc: "IP or IP:PORT that are never peers, whatever is opened: the database, the core. Our own ports never are.",
		set: each(parsePeer, func(f *File) *[]netip.AddrPort { return &f.relay.Settings.DenyPeers })},
	{name: "relay.after_expiry", value: "until-revoked", doc: "How a live allocation outlives its credential: until-revoked, grace or strict. A browser learns nothing of a refusal in mid-call.",
		set: choice(func(f *File) *relay.AfterExpiry { return &f.relay.Settings.AfterExpiry }, relay.ExpiryUntilRevoked, relay.ExpiryGrace, relay.ExpiryStrict)},
	{name: "relay.grace", value: "10m", doc: "How long, for after_expiry: grace.",
		set: duration(time.Second, day, func(f *File) *time.Duration { return &f.relay.Settings.Grace })},
	{name: "relay.max_age", value: "24h", doc: "Longest life of an allocation.",
		set: duration(time.Minute, 30*day, func(f *File) *time.Duration { return &f.relay.Settings.MaxAge })},
	{name: "relay.revocations_file", value: "revocations.db", doc: "What keeps revocations over a restart: a file in a folder that this user may write, made with mode 0600. Empty: a restart forgets them.",
		set: text("a file name", func(f *File) *string { return &f.relay.Revocations.File })},
	{name: "relay.quota", value: "32", doc: "Allocations of one user at a time; a browser makes 6 to 12.",
		set: integer(1, 65536, func(f *File) *int { return &f.relay.Settings.MaxAllocationsPerSubject })},
	{name: "relay.max_permissions", value: "64", doc: "Permissions, and likewise channels, of one allocation.",
		set: integer(1, 65536, func(f *File) *int { return &f.relay.Settings.MaxPermissions })},
	{name: "relay.bytes_per_second", value: "0", doc: "What all allocations of one user relay together, both ways, with a second's worth at once: 65536 or more; 0: no limit.",
		set: integer(0, 1<<40, func(f *File) *int { return &f.relay.Settings.BytesPerSecond })},
	{name: "relay.challenge_rate", value: "500", doc: "Unauthenticated answers on UDP a second, for each IPv4 address or IPv6 /64, and four seconds' worth at once: many users may share an address.",
		set: integer(1, 1_000_000, func(f *File) *int { return &f.relay.Settings.ChallengeRate })},
	{name: "relay.max_pending_streams", value: "4096", doc: "TCP and TLS connections that have made no allocation yet.",
		set: integer(1, 1_000_000, func(f *File) *int { return &f.relay.Settings.MaxPendingStreams })},
	{name: "relay.strict_channels", value: "false", doc: "Refuse channel numbers above 0x4FFF, as RFC 8656 12.2 says; older clients choose them.",
		set: boolean(func(f *File) *bool { return &f.relay.Settings.StrictChannels })},
	{name: "relay.listen.udp", value: "203.0.113.6:3478", kind: sample, missing: "none", doc: "TURN over UDP.",
		set: each(parseAddress, func(f *File) *[]node.Address { return &f.relay.UDP })},
	{name: "relay.listen.tcp", value: "203.0.113.6:3478", kind: sample, missing: "none", doc: "TURN over TCP.",
		set: each(parseAddress, func(f *File) *[]node.Address { return &f.relay.TCP })},
	{name: "relay.listen.tls", value: "203.0.113.6:443", kind: sample, missing: "none", doc: "TURN over TLS. Port 443 gets through most firewalls.",
		set: each(parseAddress, func(f *File) *[]node.Address { return &f.relay.TLS })},
	{name: "relay.tls.cert_file", value: "tls/relay.pem", kind: sample, missing: "proxy.tls.cert_file", doc: "The certificate and its chain, PEM.",
		set: text("a file name", func(f *File) *string { return &f.relayTLS.cert })},
	{name: "relay.tls.key_file", value: "tls/relay.key", kind: sample, missing: "proxy.tls.key_file", doc: "Its key, PEM, readable by this user, or by its group, only.",
		set: text("a file name", func(f *File) *string { return &f.relayTLS.key })},

	{name: "waf.enabled", value: "false", doc: "Whether there is one. It wants a store that outlives the process.",
		set: boolean(func(f *File) *bool { return &f.wafOn })},
	{name: "waf.listen", value: "203.0.113.5:8443", kind: sample, missing: "none, and waf.enabled wants it", doc: "https.",
		set: address(func(f *File) *node.Address { return &f.waf.Listen })},
	{name: "waf.issuer", value: "https://login.ims.example", kind: sample, missing: "none, and waf.enabled wants it", doc: "How browsers and tokens call it: https, its name, and the port where that is not 443; no path.",
		set: text("an https URL", func(f *File) *string { return &f.waf.Settings.Issuer })},
	{name: "waf.allow_implicit", value: "false", doc: "Take response_type=token, so that tokens travel in URLs; RFC 9700 2.1.2 advises against it.",
		set: boolean(func(f *File) *bool { return &f.waf.Settings.AllowImplicit })},
	{name: "waf.audience", value: "sip:ims.example", kind: sample, missing: "sip: and proxy.domain", doc: "Whom registration tokens are for: the eP-CSCF.",
		set: text("an audience", func(f *File) *string { return &f.waf.Settings.Registration.Audience })},
	{name: "waf.registration_scope", value: "webrtc-ims-client-access-to-ims", doc: "The scope that asks for a registration token.",
		set: text("a scope", func(f *File) *string { return &f.waf.Settings.Registration.Scope })},
	{name: "waf.registration_life", value: "10m", doc: "Life of a registration token, and of the loan of an identity.",
		set: duration(10*time.Second, day, func(f *File) *time.Duration { return &f.waf.Settings.Registration.Life })},
	{name: "waf.refresh_life", value: "24h", doc: "How long a page can renew its tokens before its user signs in again.",
		set: duration(time.Minute, 90*day, func(f *File) *time.Duration { return &f.waf.Settings.RefreshLife })},
	{name: "waf.session_life", value: "1h", doc: "How long a user stays signed in at the WAF itself.",
		set: duration(time.Minute, 30*day, func(f *File) *time.Duration { return &f.waf.Settings.SessionLife })},
	{name: "waf.tls.cert_file", value: "tls/login.pem", kind: sample, missing: "proxy.tls.cert_file", doc: "The certificate and its chain, PEM.",
		set: text("a file name", func(f *File) *string { return &f.wafTLS.cert })},
	{name: "waf.tls.key_file", value: "tls/login.key", kind: sample, missing: "proxy.tls.key_file", doc: "Its key, PEM, readable by this user, or by its group, only.",
		set: text("a file name", func(f *File) *string { return &f.wafTLS.key })},
	{name: "waf.provider.issuer", value: `""`, doc: "Its issuer, as its discovery document has it. There we are a client with the redirect URI ISSUER/sign-in/callback, where ISSUER is waf.issuer.",
		set: text("an https URL", func(f *File) *string { return &f.wafProvider.Issuer })},
	{name: "waf.provider.name", value: `""`, doc: "What the button calls it; \"\" is its issuer.",
		set: text("a name", func(f *File) *string { return &f.wafProvider.Name })},
	{name: "waf.provider.client_id", value: `""`, doc: "Our client id there.",
		set: text("a client id", func(f *File) *string { return &f.wafProvider.ClientID })},
	{name: "waf.provider.secret_file", value: `""`, doc: "Our client secret there, in a file of mode 0600.",
		set: text("a file name", func(f *File) *string { return &f.wafProviderSecret })},
	{name: "waf.provider.user_claim", value: "sub", doc: "The claim that names the user here. Take only one that users cannot change themselves.",
		set: text("a claim", func(f *File) *string { return &f.wafProvider.UserClaim })},
	{name: "waf.provider.class", value: `""`, doc: "The pool that lends identities to users whom epcscf waf user add has not added; \"\" refuses them.",
		set: text("a class", func(f *File) *string { return &f.wafProvider.Class })},
	{name: "waf.interface.listen", value: `""`, doc: "Where relays fetch the keys of tokens (RFC 7635 4.1.1), an address of the inner network: IP:PORT. Empty: they have them in files.",
		set: maybeAddress(func(f *File) *node.Address { return &f.wafPlace.Listen })},
	{name: "waf.interface.name", value: `""`, doc: "This WAF's name, as its certificate has it: small letters, digits and hyphens, such as waf1.",
		set: text("a name", func(f *File) *string { return &f.wafPlace.Name })},
	{name: "waf.interface.domain", value: "ims.example", kind: sample, missing: "proxy.domain", doc: "The deployment's domain, as all certificates have it.",
		set: domain(func(f *File) *string { return &f.wafPlace.Domain })},
	{name: "waf.interface.cert_file", value: `""`, doc: "Its certificate and the chain, PEM, such as pki/waf-waf1.pem. A file that changes is read again, without a drop.",
		set: text("a file name", func(f *File) *string { return &f.wafPlaceFiles.pair.cert })},
	{name: "waf.interface.key_file", value: `""`, doc: "The key, PEM, readable by this user, or by its group, only.",
		set: text("a file name", func(f *File) *string { return &f.wafPlaceFiles.pair.key })},
	{name: "waf.interface.ca_file", value: `""`, doc: "The authorities of the other nodes' certificates, PEM. While they change, list old and new.",
		set: text("a file name", func(f *File) *string { return &f.wafPlaceFiles.ca })},
	{name: "waf.interface.state_dir", value: "state-waf", doc: "Keeps revocations that a node has yet to hear over a restart; made if missing.",
		set: text("a directory", func(f *File) *string { return &f.wafPlace.StateDir })},

	{name: "store.kind", value: "memory", doc: "Where records are kept: memory (gone with the process), bolt (a file) or postgres (a database, for more than one node; see epcscf migrate).",
		set: choice(func(f *File) *node.StoreKind { return &f.store.Kind }, node.StoreMemory, node.StoreBolt, node.StorePostgres)},
	{name: "store.file", value: "/var/lib/epcscf/store.db", doc: "The file of bolt, which one process at a time can have.",
		set: text("a file name", func(f *File) *string { return &f.storeFiles.file })},
	{name: "store.database_url_file", value: `""`, doc: "The connection string of postgres, in a file of mode 0600 since it may have a password. To another host it is sslmode=verify-full.",
		set: text("a file name", func(f *File) *string { return &f.storeFiles.databaseURL })},
	{name: "store.allow_insecure", value: "false", doc: "Take an sslmode below verify-full to another host, where the network between is yours alone.",
		set: boolean(func(f *File) *bool { return &f.store.AllowInsecure })},
	{name: "store.kek_file", value: `""`, doc: "The key that encrypts what is secret in a bolt or postgres store, in a file of mode 0600, or a systemd credential, 32 bytes or more: openssl rand -hex 32.",
		set: text("a file name", func(f *File) *string { return &f.storeFiles.kek })},
	{name: "store.kek_id", value: "kek1", doc: "That key's name, up to 16 letters and digits: another key, another name.",
		set: keyID(func(f *File) *turncred.KeyID { return &f.storeFiles.kekID })},
	{name: "store.older_keks", doc: "Keys that rows may still be encrypted with, until all are moved to that of kek_file: ID:FILE, or a list.",
		set: each(parseOlderKEK, func(f *File) *[]olderKEK { return &f.storeFiles.older })},

	{name: "admin.listen", value: "127.0.0.1:9090", doc: "/metrics, /healthz and /readyz, without authentication: loopback only.",
		set: adminAddress(func(f *File) *node.Address { return &f.node.Admin })},
	{name: "log.level", value: "info", onHUP: true, doc: "From this level up: debug, info, warn or error.",
		set: logLevel},
	{name: "log.format", value: "text", doc: "text or json.",
		set: choice(func(f *File) *string { return &f.LogFormat }, "text", "json")},
}
