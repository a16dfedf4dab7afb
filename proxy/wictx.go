package proxy

import (
	"fmt"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// wicTx is the client transaction of a request toward a WIC (RFC 3261 §17.1, RFC 6026).
//
// It is not sipgo's, whose timers are one set for the whole process: toward a UE a P-CSCF
// waits 64 times a T1 of 2 s (TS 24.229 7.7), toward the core 64 times 500 ms. Over a
// WebSocket nothing is sent twice, so it is little more than that one deadline.
type wicTx struct {
	req       *sip.Request
	conn      sip.Connection
	wait      time.Duration
	responses chan *sip.Response
	done      chan struct{}

	// answered is set by Receive, which one goroutine calls: a 2xx to the INVITE has come.
	answered bool

	mu     sync.Mutex // guards what follows
	timer  *time.Timer
	ended  bool
	err    error
	onEnd  sip.FnTxTerminate
	onLate sip.FnTxResponse
}

var _ clientMachine = (*wicTx)(nil)

func newWICTx(req *sip.Request, conn sip.Connection, wait time.Duration) *wicTx {
	return &wicTx{req: req, conn: conn, wait: wait, responses: make(chan *sip.Response), done: make(chan struct{})}
}

// Init sends the request.
func (x *wicTx) Init() error {
	if err := x.conn.WriteMsg(x.req); err != nil {
		return fmt.Errorf("%w: %w", sip.ErrTransactionTransport, err)
	}
	x.arm(x.wait, sip.ErrTransactionTimeout)
	return nil
}

// arm sets the one timer: Timer B or F, or Timer M after a 2xx.
func (x *wicTx) arm(d time.Duration, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stopTimerLocked()
	if !x.ended {
		x.timer = time.AfterFunc(d, func() { x.end(err) })
	}
}

func (x *wicTx) stopTimerLocked() {
	if x.timer != nil {
		x.timer.Stop()
	}
}

// Receive takes a response. It blocks until the response is taken, see clientTx.feed.
func (x *wicTx) Receive(res *sip.Response) {
	switch {
	case x.answered:
		if res.IsSuccess() { // RFC 6026 §7.2: retransmitted, or of another fork
			x.late(res)
		}
	case res.IsProvisional():
		if x.req.IsInvite() { // RFC 3261 §17.1.1.2: Timer B ends; Timer C is the proxy's
			x.mu.Lock()
			x.stopTimerLocked()
			x.mu.Unlock()
		}
		x.deliver(res)
	case !x.req.IsInvite():
		x.deliver(res)
		x.end(sip.ErrTransactionTerminated) // Timer K is zero on a reliable transport
	case res.IsSuccess():
		x.answered = true
		x.arm(64*sip.T1, sip.ErrTransactionTerminated)
		x.deliver(res)
	default:
		_ = x.conn.WriteMsg(ackOf(x.req, res))
		x.deliver(res)
		x.end(sip.ErrTransactionTerminated) // Timer D is zero on a reliable transport
	}
}

func (x *wicTx) deliver(res *sip.Response) {
	select {
	case x.responses <- res:
	case <-x.done:
	}
}

func (x *wicTx) late(res *sip.Response) {
	x.mu.Lock()
	f := x.onLate
	x.mu.Unlock()
	if f != nil {
		f(res)
	}
}

func (x *wicTx) end(err error) {
	x.mu.Lock()
	if x.ended {
		x.mu.Unlock()
		return
	}
	x.ended, x.err = true, err
	x.stopTimerLocked()
	f := x.onEnd
	x.mu.Unlock()
	close(x.done)
	if f != nil {
		f("", err)
	}
}

// Responses are the responses up to the first final one.
func (x *wicTx) Responses() <-chan *sip.Response { return x.responses }

// Done is closed when the transaction has ended.
func (x *wicTx) Done() <-chan struct{} { return x.done }

// Terminate ends the transaction.
func (x *wicTx) Terminate() { x.end(sip.ErrTransactionCanceled) }

// Origin is the request as it was sent.
func (x *wicTx) Origin() *sip.Request { return x.req }

// Err says why the transaction ended.
func (x *wicTx) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// OnTerminate sets what is called once at the end.
func (x *wicTx) OnTerminate(f sip.FnTxTerminate) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.onEnd = f
	return !x.ended
}

// OnRetransmission sets what is called with each later 2xx to an INVITE.
func (x *wicTx) OnRetransmission(f sip.FnTxResponse) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.onLate = f
	return !x.ended
}

// ackOf builds the ACK of a non-2xx (RFC 3261 §17.1.1.3).
func ackOf(inv *sip.Request, res *sip.Response) *sip.Request {
	ack := followUp(inv, sip.ACK)
	setRows(ack, "To", first(res, "To"))
	return ack
}

// followUp builds a request that goes the way of another and belongs to its transaction:
// the ACK of a non-2xx, a CANCEL (RFC 3261 §9.1, §17.1.1.3).
func followUp(of *sip.Request, method sip.RequestMethod) *sip.Request {
	req := sip.NewRequest(method, of.Recipient)
	req.AppendHeader(of.Via().Clone())
	for _, name := range []string{"Route", "From", "To", "Call-ID"} {
		for _, h := range sipext.Rows(of, name) {
			req.AppendHeader(h)
		}
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: of.CSeq().SeqNo, MethodName: method})
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	req.SetBody(nil)
	return req
}
