package proxy

import (
	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// capabilities are the fields of a 200 to OPTIONS (RFC 3261 §11.2).
func capabilities() []sip.Header {
	return []sip.Header{
		sip.NewHeader("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, MESSAGE, INFO, UPDATE, PRACK, SUBSCRIBE, NOTIFY, REFER, PUBLISH"),
		sip.NewHeader("Accept", "application/sdp"),
		sip.NewHeader("Supported", "path, outbound"),
	}
}

// options answers an OPTIONS that is addressed to the home domain or to us. This is how a
// WIC renews its credential before the next registration (TS 33.203 X.5.2.1).
func (p *Proxy) options(t *serverTx) {
	f := t.from.flow
	wanted, err := sipext.TurnCredWanted(t.req)
	if err != nil {
		t.answer(sip.StatusBadRequest, "Malformed "+sipext.TurnCredHeader)
		return
	}
	reg := f.registrationFor(aor(&t.req.From().Address))
	if reg == nil {
		t.answer(sip.StatusForbidden, "Not registered on this flow")
		return
	}
	if !wanted {
		t.answer(sip.StatusOK, "OK", capabilities()...)
		return
	}
	// The relay may take a second to answer; the flow's other requests do not wait for it.
	t.keep = true
	p.start(func() {
		value := p.answerWish(reg, reg.identity().expires.Sub(p.cfg.Now()))
		t.answer(sip.StatusOK, "OK", append(capabilities(), sip.NewHeader(sipext.TurnCredHeader, value))...)
	})
}
