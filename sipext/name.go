package sipext

import "strings"

// Name is a header field name that the edge has something to do with, in every spelling
// that RFC 3261 §7.3 allows. Other is any other.
type Name uint8

// The names: of RFC 3261 and the extensions that allow a field once, then those that a
// proxy, an edge and a registrar look at, then those of the trust domain.
const (
	Other Name = iota
	CallID
	ContentDisposition
	ContentLength
	ContentType
	CSeq
	Date
	Event
	Expires
	From
	MaxForwards
	MIMEVersion
	MinExpires
	MinSE
	Organization
	Priority
	RAck
	ReferTo
	ReferredBy
	Replaces
	RetryAfter
	RSeq
	SessionExpires
	SIPETag
	SIPIfMatch
	Subject
	SubscriptionState
	Timestamp
	To

	AcceptContact
	AllowEvents
	Authorization
	Contact
	ContentEncoding
	Path
	ProxyAuthorization
	ProxyRequire
	Reason
	RecordRoute
	RejectContact
	RequestDisposition
	Require
	Route
	ServiceRoute
	Supported
	Via
	WWWAuthenticate
	TurnCredField

	AdditionalIdentity
	AttestationInfo
	CellularNetworkInfo
	FeatureCaps
	FlowTimer
	HistoryInfo
	Identity
	IdentityInfo
	OriginationID
	PAccessNetworkInfo
	PAssertedIdentity
	PAssertedService
	PAssociatedURI
	PCalledPartyID
	PChargingFunctionAddresses
	PChargingVector
	PEarlyMedia
	PPreferredIdentity
	PPrivateNetworkIndication
	PProfileKey
	PRefusedURIList
	PServedUser
	PUserDatabase
	PVisitedNetworkID
	PriorityShare
	Privacy
	RelayedCharge
	ResourcePriority
	ResponseSource
	RestorationInfo
	SecurityClient
	SecurityServer
	SecurityVerify
	ServiceInteractInfo
	numNames
)

var spelled = [numNames]string{
	CallID: "Call-ID", ContentDisposition: "Content-Disposition", ContentLength: "Content-Length", ContentType: "Content-Type",
	CSeq: "CSeq", Date: "Date", Event: "Event", Expires: "Expires", From: "From", MaxForwards: "Max-Forwards",
	MIMEVersion: "MIME-Version", MinExpires: "Min-Expires", MinSE: "Min-SE", Organization: "Organization",
	Priority: "Priority", RAck: "RAck", ReferTo: "Refer-To", ReferredBy: "Referred-By", Replaces: "Replaces",
	RetryAfter: "Retry-After", RSeq: "RSeq", SessionExpires: "Session-Expires", SIPETag: "SIP-ETag",
	SIPIfMatch: "SIP-If-Match", Subject: "Subject", SubscriptionState: "Subscription-State", Timestamp: "Timestamp", To: "To",

	AcceptContact: "Accept-Contact", AllowEvents: "Allow-Events", Authorization: "Authorization", Contact: "Contact",
	ContentEncoding: "Content-Encoding", Path: "Path", ProxyAuthorization: "Proxy-Authorization", ProxyRequire: "Proxy-Require",
	Reason: "Reason", RecordRoute: "Record-Route", RejectContact: "Reject-Contact", RequestDisposition: "Request-Disposition",
	Require: "Require", Route: "Route", ServiceRoute: "Service-Route", Supported: "Supported", Via: "Via",
	WWWAuthenticate: "WWW-Authenticate", TurnCredField: TurnCredHeader,

	AdditionalIdentity: "Additional-Identity", AttestationInfo: "Attestation-Info", CellularNetworkInfo: "Cellular-Network-Info",
	FeatureCaps: "Feature-Caps", FlowTimer: "Flow-Timer", HistoryInfo: "History-Info", Identity: "Identity",
	IdentityInfo: "Identity-Info", OriginationID: "Origination-Id", PAccessNetworkInfo: "P-Access-Network-Info",
	PAssertedIdentity: "P-Asserted-Identity", PAssertedService: "P-Asserted-Service", PAssociatedURI: "P-Associated-URI",
	PCalledPartyID: "P-Called-Party-ID", PChargingFunctionAddresses: "P-Charging-Function-Addresses",
	PChargingVector: "P-Charging-Vector", PEarlyMedia: "P-Early-Media", PPreferredIdentity: "P-Preferred-Identity",
	PPrivateNetworkIndication: "P-Private-Network-Indication", PProfileKey: "P-Profile-Key", PRefusedURIList: "P-Refused-URI-List",
	PServedUser: "P-Served-User", PUserDatabase: "P-User-Database", PVisitedNetworkID: "P-Visited-Network-ID",
	PriorityShare: "Priority-Share", Privacy: "Privacy", RelayedCharge: "Relayed-Charge", ResourcePriority: "Resource-Priority",
	ResponseSource: "Response-Source", RestorationInfo: "Restoration-Info", SecurityClient: "Security-Client",
	SecurityServer: "Security-Server", SecurityVerify: "Security-Verify", ServiceInteractInfo: "Service-Interact-Info",
}

// compact are the one-letter names of the IANA registry "SIP Header Fields".
var compact = [256]Name{
	'a': AcceptContact, 'b': ReferredBy, 'c': ContentType, 'd': RequestDisposition, 'e': ContentEncoding, 'f': From,
	'i': CallID, 'j': RejectContact, 'k': Supported, 'l': ContentLength, 'm': Contact, 'n': IdentityInfo, 'o': Event,
	'r': ReferTo, 's': Subject, 't': To, 'u': AllowEvents, 'v': Via, 'x': SessionExpires, 'y': Identity,
}

// byLength finds the few names of one length, of which the first letters mostly differ.
var byLength = func() (t [32][]Name) {
	for n := CallID; n < numNames; n++ {
		t[len(spelled[n])] = append(t[len(spelled[n])], n)
	}
	return t
}()

// NameOf returns the Name that s spells, whatever the case, also in its compact form
// (RFC 3261 §7.3.3).
func NameOf(s string) Name {
	if len(s) == 1 {
		return compact[s[0]|0x20] // lower case
	}
	if len(s) >= len(byLength) {
		return Other
	}
	for _, n := range byLength[len(s)] {
		if strings.EqualFold(spelled[n], s) {
			return n
		}
	}
	return Other
}

// String returns the long form; of Other "".
func (n Name) String() string { return spelled[n] }

// isSingle reports whether RFC 3261 §20 and the RFCs of extensions allow the field once.
func (n Name) isSingle() bool { return n >= CallID && n <= To }
