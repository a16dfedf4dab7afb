package proxy

import "github.com/emiago/sipgo/sip"

// dialogFromWIC finds the dialog that a WIC's request belongs to, and the route that it must
// take. A dialog that is not there gets 481 (RFC 3261 §12.2.2), one that is another's 403
// (TS 24.229 5.2.6.3.5, known to us by digests).
func (p *Proxy) dialogFromWIC(f *Flow, req *sip.Request) (*dialog, []string, *refusal) {
	t, id := &p.dialogs, idFromWIC(req)
	d := t.find(id, p.cfg.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	if d == nil && req.Method == sip.NOTIFY {
		if w := t.forming[dialogID{id.callID, "", id.remote}]; w != nil && w.flow == f {
			d = w.notifyLocked(req)
		}
	}
	switch {
	case d == nil:
		return nil, nil, &refusal{status: sip.StatusCallTransactionDoesNotExists, phrase: "Call/Transaction Does Not Exist"}
	case d.flow != f:
		return nil, nil, &refusal{status: sip.StatusForbidden, phrase: "Not a participant of this dialog"}
	}
	d.sees(req.CSeq().SeqNo, true)
	return d, d.route, nil
}

// dialogToWIC finds the dialog that a request of the core belongs to, and the flow on which
// its WIC is now. home is the flow that the request's token names.
func (p *Proxy) dialogToWIC(home uint64, req *sip.Request) (*Flow, *dialog, *refusal) {
	t, id := &p.dialogs, idToWIC(req)
	d := t.find(id, p.cfg.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	if d == nil && req.Method == sip.NOTIFY {
		if w := t.forming[dialogID{id.callID, id.local, ""}]; w != nil {
			d = w.notifyLocked(req)
		}
	}
	switch {
	case d == nil && p.flows.get(home) == nil:
		return nil, nil, &refusal{status: statusFlowFailed, phrase: "Flow Failed"}
	case d == nil, d.home != home:
		return nil, nil, &refusal{status: sip.StatusCallTransactionDoesNotExists, phrase: "Call/Transaction Does Not Exist"}
	}
	d.sees(req.CSeq().SeqNo, false)
	return d.flow, d, nil
}
