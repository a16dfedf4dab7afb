// Package minicore is NOT FOR PRODUCTION: a registrar and S-CSCF in miniature, so that
// the demo and the tests of the edge have a core to talk to without installing one.
//
// It does what an eP-CSCF sees of an IMS core, and no more:
//
//	REGISTER   registrar.go   RFC 3261 §10.3; digest.go (RFC 7616, RFC 8760), Path (RFC 3327),
//	                          instance and reg-id (RFC 5626 §6), Service-Route (RFC 3608),
//	                          P-Associated-URI (RFC 7315 §4.1)
//	SUBSCRIBE  regevent.go    Event: reg (RFC 3680): NOTIFY with the full state, and at changes
//	others     route.go       RFC 3261 §16.4 and §16.5: own Route off, user to bindings,
//	                          Request-URI from the contact, Route from its Path
//	           fork.go        RFC 3261 §16.6, §16.7, §16.10: copies to all devices, best
//	                          response back, CANCEL to the rest
//	           transaction.go RFC 3261 §17 on sipgo's state machines
//	           socket.go      UDP and TCP; a message of any size that UDP carries goes by UDP
//
// It stays out of dialogs unless Config.RecordRoute says otherwise, believes the edge
// in everything but the user's password, and keeps bindings in memory. It knows no
// HSS, no filter criteria and no other domain.
package minicore
