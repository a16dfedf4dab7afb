package relay

import (
	"time"

	"github.com/pion/stun/v3"
)

// methodNames are the methods that we answer, as metrics and logs call them.
var methodNames = map[stun.Method]string{
	stun.MethodBinding:          "binding",
	stun.MethodAllocate:         "allocate",
	stun.MethodRefresh:          "refresh",
	stun.MethodCreatePermission: "create_permission",
	stun.MethodChannelBind:      "channel_bind",
}

var (
	sendIndication    = stun.NewType(stun.MethodSend, stun.ClassIndication)
	dataIndication    = stun.NewType(stun.MethodData, stun.ClassIndication)
	bindingIndication = stun.NewType(stun.MethodBinding, stun.ClassIndication)
)

// request is a request under way.
type request struct {
	msg  *stun.Message
	five FiveTuple
	conn clientConn
	now  time.Time

	alloc  *allocation // live on the five-tuple, or nil
	holder holder      // who asks, once authenticate has returned nil
	key    []byte      // signs the answer; nil until MESSAGE-INTEGRITY has held
	signed *integrity  // how
}

// stranger reports whether anyone may have sent r, and from anywhere.
func (r *request) stranger() bool { return r.key == nil && r.five.Transport == UDP }

// refusal is an error response, and for the operator its cause.
type refusal struct {
	code      stun.ErrorCode
	cause     string
	challenge bool            // with REALM and a fresh NONCE
	unknown   []stun.AttrType // for 420
}

func refuse(code stun.ErrorCode, cause string) *refusal { return &refusal{code: code, cause: cause} }

// challenge refuses with 401. Whatever the cause, the client sees the same.
func challenge(cause string) *refusal {
	return &refusal{code: stun.CodeUnauthorized, cause: cause, challenge: true}
}

// handleRequest answers a request (RFC 8489 §6.3.1, RFC 8656 §5).
func (w *worker) handleRequest(m *stun.Message, five FiveTuple, conn clientConn) {
	r := &request{msg: m, five: five, conn: conn, now: w.s.cfg.Now()}
	w.begin(r, stun.ClassSuccessResponse)
	no := w.serve(r)
	if r.stranger() && !w.s.strange.admit(five.Client.Addr(), r.now) {
		w.s.metrics.drop(dropChallengeRate)
		return
	}
	if no != nil {
		w.writeRefusal(r, no)
	}
	w.finish(r)
}

// serve does what a request asks and writes the success response, or says why not.
func (w *worker) serve(r *request) *refusal {
	if r.msg.Type.Method == stun.MethodBinding {
		if no := w.checkUnknown(r); no != nil {
			return no
		}
		return w.handleBinding(r)
	}

	// RFC 8489 §6.3: authentication first, unknown attributes after it.
	r.alloc = w.s.live(r.five, r.now)
	if no := w.authenticate(r); no != nil {
		// RFC 7635 §7: 420 where tokens are off, also to who has nothing but a token.
		if w.s.cfg.Tokens == nil && r.msg.Contains(attrAccessToken) {
			return w.checkUnknown(r)
		}
		return no
	}
	if no := w.checkUnknown(r); no != nil {
		return no
	}
	if r.msg.Type.Method == stun.MethodAllocate {
		return w.handleAllocate(r)
	}

	// RFC 8656 §5: without an allocation 437, with another user's 441.
	if r.alloc == nil {
		return refuse(stun.CodeAllocMismatch, "no allocation")
	}
	if !r.holder.sameUser(r.alloc.who()) {
		return refuse(stun.CodeWrongCredentials, "allocation of another user")
	}
	switch r.msg.Type.Method {
	case stun.MethodRefresh:
		return w.handleRefresh(r)
	case stun.MethodCreatePermission:
		return w.handleCreatePermission(r)
	default:
		return w.handleChannelBind(r)
	}
}

// checkUnknown refuses attributes that the client wants understood (RFC 8489 §6.3.1).
func (w *worker) checkUnknown(r *request) *refusal {
	if unknown := unknownIn(r.msg, w.s.cfg.Tokens != nil); len(unknown) > 0 {
		return &refusal{code: stun.CodeUnknownAttribute, cause: "unknown attribute", unknown: unknown}
	}
	return nil
}

// handleBinding tells the client its address (RFC 8489 §6.3.1.1).
func (w *worker) handleBinding(r *request) *refusal {
	w.addAddress(stun.AttrXORMappedAddress, r.five.Client)
	return nil
}

// begin starts the answer.
func (w *worker) begin(r *request, class stun.MessageClass) {
	w.out.Reset()
	w.out.Type = stun.NewType(r.msg.Type.Method, class)
	w.out.TransactionID = r.msg.TransactionID
	w.out.WriteHeader()
}

func (w *worker) writeRefusal(r *request, no *refusal) {
	w.begin(r, stun.ClassErrorResponse)
	if err := no.code.AddTo(w.out); err != nil {
		panic("relay: no reason phrase for error code " + err.Error())
	}
	if no.challenge {
		w.out.Add(stun.AttrRealm, []byte(w.s.cfg.Realm))
		var b [nonceStringLen]byte
		w.out.Add(stun.AttrNonce, w.s.nonces.appendTo(b[:0], r.five, r.now))
		w.out.Add(stun.AttrPasswordAlgorithms, offeredAlgorithms)
		if t := w.s.cfg.Tokens; t != nil { // RFC 7635 §4
			w.out.Add(attrThirdPartyAuthorization, []byte(t.ServerName()))
		}
	}
	if len(no.unknown) > 0 {
		w.out.Add(stun.AttrUnknownAttributes, unknownValue(no.unknown))
	}
	w.s.metrics.answered(r.msg.Type.Method, no.code)
	w.s.log.Debug("relay: request refused", "flow", r.five.Client, "transport", r.five.Transport,
		"method", methodNames[r.msg.Type.Method], "status", int(no.code), "reason", no.cause)
}

// finish signs and sends the answer.
func (w *worker) finish(r *request) {
	if w.out.Type.Class == stun.ClassSuccessResponse {
		w.s.metrics.answered(r.msg.Type.Method, 0)
	}
	room := maxSTUNLength
	if r.stranger() {
		room = maxAmplification*len(r.msg.Raw) - fingerprintLen
	}
	if s := w.s.cfg.Software; s != "" && len(w.out.Raw)+attributeHeaderLen+len(s)+tailroom <= room {
		w.out.Add(stun.AttrSoftware, []byte(s))
	}
	if len(w.out.Raw) > room {
		w.s.metrics.drop(dropAmplification)
		return
	}
	if r.key != nil { // RFC 8489 §9.2.4: any response to an authenticated request
		r.signed.addTo(w.out, r.key)
	}
	if r.msg.Contains(stun.AttrFingerprint) {
		_ = stun.Fingerprint.AddTo(w.out) // has no way to fail
	}
	if r.conn.write(w.out.Raw) != nil {
		w.s.metrics.drop(dropWrite)
	}
}
