package minicore

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// maxTransactions bounds the requests in work; above it the core answers 503.
const maxTransactions = 10_000

// quiet is what sipgo's state machines log to: they print request lines, which hold
// the edge's flow tokens.
var quiet = slog.New(slog.DiscardHandler)

// transactions matches messages to sipgo's state machines (RFC 3261 §17).
type transactions struct {
	mu      sync.Mutex             // guards all below
	servers map[string]*exchange   // by serverKey
	clients map[string]*clientSide // by sip.ClientTxKeyMake
	closed  bool
}

// exchange is a request from outside and its server transaction.
type exchange struct {
	req    *sip.Request // never changed: the transaction's timers read it
	tx     *sip.ServerTx
	cancel chan struct{} // closed by the CANCEL
	once   sync.Once
}

// clientSide is a client transaction with its queue: a goroutine a transaction keeps
// responses in order, which sipgo's own layer does not.
type clientSide struct {
	tx *sip.ClientTx
	in chan *sip.Response
}

func (t *transactions) init() {
	t.servers = map[string]*exchange{}
	t.clients = map[string]*clientSide{}
}

func (t *transactions) server(key string) *exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.servers[key]
}

func (t *transactions) client(key string) *clientSide {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clients[key]
}

// terminateAll ends every transaction and lets no new one in.
func (t *transactions) terminateAll() {
	t.mu.Lock()
	t.closed = true
	servers, clients := t.servers, t.clients
	t.init()
	t.mu.Unlock()
	for _, s := range servers {
		s.tx.Terminate()
	}
	for _, c := range clients {
		c.tx.Terminate()
	}
}

// serverKey matches a request to its transaction (RFC 3261 §17.2.3): branch, sent-by and
// method, where ACK and CANCEL look for their INVITE.
func serverKey(req *sip.Request) string {
	via := req.Via()
	branch, _ := via.Params.Get("branch")
	method := req.Method
	if method == sip.ACK || method == sip.CANCEL {
		method = sip.INVITE
	}
	return strings.Join([]string{branch, strings.ToLower(via.Host), strconv.Itoa(via.Port), string(method)}, "|")
}

// dispatch takes every message that a socket reads. It does not block.
func (c *Core) dispatch(m sip.Message, src netip.AddrPort, from peer) {
	switch m := m.(type) {
	case *sip.Response:
		c.dispatchResponse(m)
	case *sip.Request:
		if err := validate(m); err != nil {
			c.log.Debug("refuse a request", "method", m.Method, "reason", "malformed", "err", err)
			if m.Via() != nil && !m.IsAck() {
				_ = replyTo(m, src, from).WriteMsg(reply(m, sip.StatusBadRequest, "Bad Request: "+err.Error()))
			}
			return
		}
		noteSource(m, src)
		m.SetSource(src.String()) // whose word it is, where the registrar trusts some
		c.dispatchRequest(m, replyTo(m, src, from))
	}
}

func (c *Core) dispatchResponse(res *sip.Response) {
	key, err := sip.ClientTxKeyMake(res)
	if err != nil || res.StatusCode < 100 || res.StatusCode > 699 {
		return
	}
	cs := c.txs.client(key)
	if cs == nil {
		return // RFC 6026 §7.2: stray responses are not forwarded
	}
	select {
	case cs.in <- res:
	default:
		c.log.Warn("drop a response", "reason", "queue full", "status", res.StatusCode)
	}
}

func (c *Core) dispatchRequest(req *sip.Request, to peer) {
	key := serverKey(req)
	ex := c.txs.server(key)
	switch req.Method {
	case sip.ACK:
		if ex != nil {
			_ = ex.tx.Receive(req)
			return
		}
		c.wg.Go(func() { c.forwardACK(req) }) // of a 2xx: end to end (RFC 3261 §13.2.2.4)
		return
	case sip.CANCEL:
		// RFC 3261 §16.10: answered here, then sent on to what is pending.
		if ex == nil {
			_ = to.WriteMsg(reply(req, sip.StatusCallTransactionDoesNotExists, "Call/Transaction Does Not Exist"))
			return
		}
		_ = to.WriteMsg(reply(req, sip.StatusOK, "OK"))
		ex.once.Do(func() { close(ex.cancel) })
		return
	}
	if ex != nil {
		_ = ex.tx.Receive(req) // a retransmission
		return
	}
	ex = &exchange{req: req, tx: sip.NewServerTx(key, req, to, quiet), cancel: make(chan struct{})}
	if err := c.addServer(key, ex); err != nil {
		c.log.Warn("refuse a request", "method", req.Method, "err", err)
		_ = to.WriteMsg(reply(req, sip.StatusServiceUnavailable, "Service Unavailable"))
		return
	}
	c.wg.Go(func() { c.handle(ex) })
}

func (c *Core) addServer(key string, ex *exchange) error {
	if err := ex.tx.Init(); err != nil {
		return err
	}
	c.txs.mu.Lock()
	defer c.txs.mu.Unlock()
	if c.txs.closed || len(c.txs.servers) >= maxTransactions {
		ex.tx.Terminate()
		return fmt.Errorf("%d transactions in work", len(c.txs.servers))
	}
	c.txs.servers[key] = ex
	ex.tx.OnTerminate(func(string, error) {
		c.txs.mu.Lock()
		defer c.txs.mu.Unlock()
		delete(c.txs.servers, key)
	})
	return nil
}

// startClient sends req, whose top Via is ours, in a client transaction.
func (c *Core) startClient(req *sip.Request, to peer) (*sip.ClientTx, error) {
	key, err := sip.ClientTxKeyMake(req)
	if err != nil {
		return nil, err
	}
	req.SetTransport(to.transport())
	cs := &clientSide{tx: sip.NewClientTx(key, req, hop{to}, quiet), in: make(chan *sip.Response, 64)}
	c.txs.mu.Lock()
	if c.txs.closed || c.txs.clients[key] != nil {
		c.txs.mu.Unlock()
		return nil, net.ErrClosed
	}
	c.txs.clients[key] = cs
	c.txs.mu.Unlock()
	cs.tx.OnTerminate(func(string, error) {
		c.txs.mu.Lock()
		defer c.txs.mu.Unlock()
		delete(c.txs.clients, key)
	})
	if err := cs.tx.Init(); err != nil {
		cs.tx.Terminate()
		return nil, err
	}
	c.wg.Go(func() {
		for {
			select {
			case res := <-cs.in:
				cs.tx.Receive(res)
			case <-cs.tx.Done():
				return
			}
		}
	})
	return cs.tx, nil
}

// validate checks what this core relies on: sipgo's parser asks for no header at all.
func validate(req *sip.Request) error {
	via := req.Via()
	switch {
	case via == nil:
		return fmt.Errorf("no Via")
	case req.From() == nil, req.To() == nil, req.CallID() == nil, req.CSeq() == nil:
		return fmt.Errorf("one of From, To, Call-ID and CSeq is missing")
	case req.CSeq().MethodName != req.Method:
		return fmt.Errorf("CSeq names another method")
	case !req.From().Params.Has("tag"):
		return fmt.Errorf("no From tag")
	}
	if b, _ := via.Params.Get("branch"); !strings.HasPrefix(b, sip.RFC3261BranchMagicCookie) {
		return fmt.Errorf("no RFC 3261 branch in the top Via")
	}
	return nil
}

// noteSource writes received and rport into the top Via (RFC 3261 §18.2.1, RFC 3581 §4).
func noteSource(req *sip.Request, src netip.AddrPort) {
	via := req.Via()
	ip := src.Addr().Unmap().String()
	if via.Params.Has("rport") {
		via.Params.Add("rport", strconv.Itoa(int(src.Port())))
		via.Params.Add("received", ip)
	} else if via.Host != ip {
		via.Params.Add("received", ip)
	}
}

// replyTo returns where responses go: a connection's own peer, or for UDP the source
// address and, without rport, the port of the Via (RFC 3261 §18.2.2).
func replyTo(req *sip.Request, src netip.AddrPort, from peer) peer {
	udp, ok := from.(udpPeer)
	if !ok {
		return from
	}
	if via := req.Via(); !via.Params.Has("rport") {
		port := via.Port
		if port <= 0 || port > 65535 {
			port = 5060
		}
		udp.addr = netip.AddrPortFrom(src.Addr().Unmap(), uint16(port))
	}
	return udp
}

// reply makes a response to req.
func reply(req *sip.Request, code int, reason string) *sip.Response {
	return sip.NewResponseFromRequest(req, code, reason, nil)
}

func callID(m interface{ CallID() *sip.CallIDHeader }) string {
	if id := m.CallID(); id != nil {
		return id.Value()
	}
	return ""
}

// headerValue returns the value of the first row of a header field, or "".
func headerValue(m sipext.HeaderFields, name string) string {
	if rows := sipext.Rows(m, name); len(rows) > 0 {
		return rows[0].Value()
	}
	return ""
}
