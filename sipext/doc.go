// Package sipext holds SIP header fields and checks that sipgo does not have: pure
// parsing, printing and validation, without sockets or state.
//
// # 3gpp-ext-turn-cred
//
// TS 33.203 X.5.2.2 names the header field and a value of Tid, Texp and Tpwd, and
// leaves the rest open. Ours:
//
//	3gpp-ext-turn-cred = "3gpp-ext-turn-cred" HCOLON
//	                     ( "request" / cred / "unavailable" ) *( SEMI param )
//	cred   = Tid COLON Texp COLON Tpwd      ; printed without spaces
//	Tid    = 1*( ALPHA / DIGIT / "-" / "_" )
//	Texp   = 1*DIGIT                        ; Unix seconds
//	Tpwd   = 1*( ALPHA / DIGIT / "+" / "/" ) *2"="
//	param  = ( "username" / "realm" / "uris" ) EQUAL quoted-string
//	       / ( "ttl" / "retry-after" ) EQUAL delta-seconds
//	       / "approach" EQUAL ( "shared-key" / "push" )
//	       / "reason" EQUAL ( "relay-unreachable" / "limit" / "disabled" / token )
//	       / generic-param
//
// It is no list: a second row, an unquoted comma or a repeated parameter is refused.
package sipext
