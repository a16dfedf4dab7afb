package proxy

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// txKey names a transaction. It holds the flow (0: the core): every WIC calls itself
// something.invalid, so two of them may have equal branches and sent-by, and a stranger who
// knows a branch could otherwise cancel another's call.
type txKey struct {
	flow uint64
	id   string
}

// serverKey matches requests to server transactions (RFC 3261 §17.2.3). method is the
// transaction's: an ACK belongs to its INVITE, a CANCEL cancels one.
func serverKey(flow uint64, m *sipext.Message, method sip.RequestMethod) txKey {
	via := m.First(sipext.Via)
	branch := viaParam(via, "branch")
	if strings.HasPrefix(branch, sip.RFC3261BranchMagicCookie) {
		return txKey{flow, branch + "|" + viaSentBy(via) + "|" + string(method)}
	}
	// An RFC 2543 client: To tag and Request-URI are left out, so its ACK to a 2xx matches too.
	seq, _, _ := strings.Cut(m.First(sipext.CSeq), " ")
	return txKey{flow, strings.Join([]string{"2543", tagOf(m.First(sipext.From)), m.First(sipext.CallID), seq, via, string(method)}, "|")}
}

// clientKey matches responses to client transactions (RFC 3261 §17.1.3).
func clientKey(flow uint64, m sip.Message) txKey {
	branch, _ := m.Via().Params.Get("branch")
	return txKey{flow, branch + "|" + string(m.CSeq().MethodName)}
}

// txTable holds the transactions of both sides.
type txTable struct {
	mu      sync.Mutex // guards servers and clients
	servers map[txKey]*serverTx
	clients map[txKey]*clientTx
}

func (t *txTable) init() {
	t.servers, t.clients = map[txKey]*serverTx{}, map[txKey]*clientTx{}
}

func (t *txTable) server(k txKey) *serverTx {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.servers[k]
}

func (t *txTable) client(k txKey) *clientTx {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clients[k]
}

func (t *txTable) terminateAll() {
	t.mu.Lock()
	servers, clients := t.servers, t.clients
	t.init()
	t.mu.Unlock()
	for _, s := range servers {
		s.Terminate()
	}
	for _, c := range clients {
		c.Terminate()
	}
}

// peer is where a message came from: a flow, or a socket to the core.
type peer struct {
	flow      *Flow // nil: the core
	conn      sip.Connection
	transport string
	hop       *hop           // that it was chosen as; nil: not chosen by us
	source    netip.AddrPort // that a message of the core came from
}

func (p peer) id() uint64 {
	if p.flow == nil {
		return 0
	}
	return p.flow.id
}

// side labels metrics and logs.
func (p peer) side() string {
	if p.flow == nil {
		return "core"
	}
	return "wic"
}

// reply holds what every response to a request repeats (RFC 3261 §8.2.6.2). It is taken
// before the request is rewritten for forwarding.
type reply struct {
	fields []sip.Header
	to     string
	tagged bool
	tag    string
}

func newReply(req *sip.Request) reply {
	r := reply{tagged: toTag(req) != "", tag: newTag()}
	for _, h := range req.Headers() {
		switch strings.ToLower(h.Name()) {
		case "via", "from", "call-id", "cseq":
			r.fields = append(r.fields, h)
		case "to":
			r.to = h.Value()
		}
	}
	return r
}

func (r reply) response(status int, phrase string, extra ...sip.Header) *sip.Response {
	res := sip.NewResponse(status, phrase)
	for _, h := range r.fields {
		res.AppendHeader(h)
	}
	to := r.to
	if !r.tagged && status != sip.StatusTrying {
		to += ";tag=" + r.tag
	}
	res.AppendHeader(sip.NewHeader("To", to))
	for _, h := range extra {
		res.AppendHeader(h)
	}
	res.SetBody(nil)
	return res
}

// serverTx is a request that we have received and must answer.
type serverTx struct {
	*sip.ServerTx
	p     *Proxy
	from  peer
	req   *sip.Request // rewritten on its way
	reply reply
	key   txKey
	// canceled receives the CANCEL of an INVITE, once.
	canceled chan *sip.Request
	final    atomic.Int32 // status of the final response, 0 before
	// keep says that a final answer is to be repeated to a client that asks again.
	keep bool
	// called is whom a request of the core is for, where it says so and we can vouch for it.
	called IMPU
	// loop marks what the request was routed by, for our Via (RFC 5393 §4.2.2).
	loop string
	// watch learns of dialogs from the responses; nil where none can come of them.
	watch watcher
}

// watcher is told of the responses to a request before they are forwarded, in the order
// and in the goroutine in which they were read: what a peer sends right after a response
// must find the dialog that it made.
type watcher interface {
	response(*sip.Response)
	// unanswered says that no final response will come.
	unanswered()
}

// newServerTx enters a transaction into the table and starts its state machine. Of a WIC it
// is the open request that admitRequest has counted.
func (p *Proxy) newServerTx(req *sip.Request, from peer, key txKey) *serverTx {
	req.SetTransport(from.transport)
	t := &serverTx{p: p, from: from, req: req, reply: newReply(req), key: key, canceled: make(chan *sip.Request, 1)}
	t.ServerTx = sip.NewServerTx(key.id, req, from.conn, p.log)
	p.txs.mu.Lock()
	p.txs.servers[key] = t
	p.txs.mu.Unlock()
	t.OnTerminate(func(string, error) {
		p.txs.mu.Lock()
		if p.txs.servers[key] == t {
			delete(p.txs.servers, key)
		}
		p.txs.mu.Unlock()
		if from.flow != nil {
			from.flow.addPending(-1, 0)
		}
	})
	_ = t.Init() // never fails in sipgo 1.7
	return t
}

// send passes a response to the state machine, which sends it.
func (t *serverTx) send(res *sip.Response) {
	if res.StatusCode >= 200 {
		t.final.CompareAndSwap(0, int32(res.StatusCode))
		if t.keep && t.from.flow != nil {
			t.from.flow.remember(t.key, outgoingOf(encode(res)))
		}
	}
	t.p.metrics.response(t.from.side(), res.StatusCode)
	if err := t.Respond(res); err != nil {
		t.p.log.Debug("response not sent", "flow", t.from.id(), "status", res.StatusCode, "err", err)
	}
}

// refusal is a request's end at this edge.
type refusal struct {
	status int
	phrase string
	extra  []sip.Header
}

// answer sends a response of our own.
func (t *serverTx) answer(status int, phrase string, extra ...sip.Header) {
	if status >= 300 {
		t.p.refused(t.from, string(t.req.Method), status, phrase)
	}
	if status >= 200 && t.watch != nil {
		t.watch.unanswered()
	}
	t.send(t.reply.response(status, phrase, extra...))
}

// refused counts a request that we have answered with an error.
func (p *Proxy) refused(from peer, method string, status int, phrase string) {
	p.metrics.answered.WithLabelValues(strconv.Itoa(status)).Inc()
	p.log.Debug("request refused", "flow", from.id(), "method", method, "status", status, "reason", phrase)
}

func (t *serverTx) refuse(r *refusal) { t.answer(r.status, r.phrase, r.extra...) }

// clientMachine is the state machine of a client transaction: sipgo's toward the core,
// wicTx toward a WIC.
type clientMachine interface {
	Init() error
	Receive(*sip.Response)
	Responses() <-chan *sip.Response
	Done() <-chan struct{}
	Err() error
	Terminate()
	Origin() *sip.Request
	OnTerminate(sip.FnTxTerminate) bool
	OnRetransmission(sip.FnTxResponse) bool
}

// clientTx is a request that we have sent.
type clientTx struct {
	clientMachine
	to    peer
	watch watcher
	// in keeps responses in order; sipgo's state machine blocks until one is consumed.
	in chan *sip.Response
}

// newClientTx pushes our Via on t's request, sends it and starts its state machine. onLate
// gets what arrives after the first 2xx of an INVITE: retransmissions and the 2xx of other
// forks.
func (p *Proxy) newClientTx(t *serverTx, to peer, onLate func(*sip.Response)) (*clientTx, error) {
	p.pushVia(t.req, to, t.loop)
	return p.startClientTx(t.req, to, t.watch, onLate)
}

func (p *Proxy) startClientTx(req *sip.Request, to peer, watch watcher, onLate func(*sip.Response)) (*clientTx, error) {
	req.SetTransport(to.transport)
	key := clientKey(to.id(), req)
	c := &clientTx{to: to, watch: watch, in: make(chan *sip.Response, 16)}
	if to.flow != nil {
		c.clientMachine = newWICTx(req, to.conn, p.cfg.Limits.Answer)
	} else {
		c.clientMachine = sip.NewClientTx(key.id, req, ackTrimmer{to.conn}, p.log)
	}
	c.OnTerminate(func(string, error) {
		p.txs.mu.Lock()
		delete(p.txs.clients, key)
		p.txs.mu.Unlock()
	})
	if onLate != nil {
		c.OnRetransmission(onLate)
	}
	p.txs.mu.Lock()
	p.txs.clients[key] = c
	p.txs.mu.Unlock()
	if err := c.Init(); err != nil {
		c.Terminate()
		return nil, err
	}
	if !p.start(c.feed) {
		c.Terminate()
		return nil, errClosed
	}
	return c, nil
}

// feed passes responses on one by one. sipgo waits with a lock held until each has been
// taken from Responses, so the socket's reader must not do this itself.
func (c *clientTx) feed() {
	for {
		select {
		case res := <-c.in:
			c.Receive(res)
		case <-c.Done():
			return
		}
	}
}

// via is our Via in a message that was scanned.
func (p *Proxy) via(transport, branch string) string {
	return "SIP/2.0/" + transport + " " + p.sentBy(transport).text + ";branch=" + branch
}

// pushVia adds our Via. loop, which may be empty, ends the branch (RFC 5393 §4.2.2).
func (p *Proxy) pushVia(req *sip.Request, to peer, loop string) {
	by := p.sentBy(to.transport)
	params := sip.NewParams()
	params.Add("branch", newBranch()+loop)
	req.PrependHeader(&sip.ViaHeader{
		ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: to.transport,
		Host: strings.Trim(by.host, "[]"), Port: by.port, Params: params,
	})
}

// ackTrimmer mends the ACK that sipgo sends to a non-2xx: RFC 3261 §17.1.1.3 wants a
// single Via, equal to the top one of the request; sipgo copies all.
type ackTrimmer struct{ sip.Connection }

// WriteMsg implements sip.Connection.
func (a ackTrimmer) WriteMsg(m sip.Message) error {
	if req, ok := m.(*sip.Request); ok && req.IsAck() {
		top := req.Via()
		sipext.Strip(req, "Via", "Contact")
		req.PrependHeader(top)
	}
	return a.Connection.WriteMsg(m)
}
