package proxy

import (
	"bufio"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Subprotocol is the WebSocket subprotocol of SIP (RFC 7118 §4.1).
const Subprotocol = "sip"

// IsUpgrade reports whether r asks for a WebSocket, so that a mux can serve pages and
// flows at one address.
func IsUpgrade(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

// newUpgrader keeps the buffers of an idle flow small: the read buffer is hijacker's, and
// there are write buffers only while a message is written.
func newUpgrader() websocket.Upgrader {
	return websocket.Upgrader{
		HandshakeTimeout: 10 * time.Second,
		WriteBufferSize:  4 << 10,
		WriteBufferPool:  &sync.Pool{},
		Subprotocols:     []string{Subprotocol},
		// The Origin has been checked when gorilla is asked.
		CheckOrigin: func(*http.Request) bool { return true },
	}
}

// hijacker makes gorilla read from a small buffer that we can look into: so the reader of a
// flow knows whether there is more to read before it parks the flow.
type hijacker struct {
	http.ResponseWriter
	br *bufio.Reader
}

// readBuffer takes the longest frame of control, and is the least that gorilla takes for its
// own. What is longer goes past it into the message.
const readBuffer = 288

// Hijack implements http.Hijacker. What a client sent too early stays in the reader of
// net/http, where gorilla looks for it and refuses it.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if rw.Reader.Buffered() == 0 {
		h.br = bufio.NewReaderSize(conn, readBuffer)
		rw.Reader = h.br
	}
	return conn, rw, nil
}

// ServeHTTP upgrades to a WebSocket and makes it a flow. Each refusal says what to do.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reason, status, text := p.admit(r)
	if reason != "" {
		p.metrics.refused.WithLabelValues(reason).Inc()
		p.log.Info("upgrade refused", "reason", reason, "remote", r.RemoteAddr, "origin", r.Header.Get("Origin"))
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "5")
		}
		http.Error(w, text, status)
		return
	}
	h := &hijacker{ResponseWriter: w}
	ws, err := p.upgrader.Upgrade(h, r, nil) // answers for itself where it fails
	if err != nil {
		p.sources.leave(addressOf(r.RemoteAddr))
		p.metrics.refused.WithLabelValues(refusedHandshake).Inc()
		p.log.Info("upgrade refused", "reason", refusedHandshake, "remote", r.RemoteAddr, "err", err)
		return
	}
	p.metrics.upgrades.Inc()
	p.poll()
	f := p.newFlow(ws, h.br, r.RemoteAddr, r.Header.Get("Origin"))
	// This goroutine, whose stack the handshake has grown, ends; a fresh one reads.
	if !p.start(f.run) {
		f.discard()
	}
}

// admit decides on an upgrade; an empty reason admits, and counts the flow's address.
func (p *Proxy) admit(r *http.Request) (reason string, status int, text string) {
	switch origin := r.Header.Get("Origin"); {
	case r.TLS == nil:
		// TS 33.203 X.5.2 relies on the secure WebSocket: a credential never goes out in clear.
		return refusedTLS, http.StatusForbidden, "SIP over WebSocket is served over TLS only: use wss://"
	case !IsUpgrade(r):
		return refusedHandshake, http.StatusBadRequest, "this address speaks SIP over WebSocket (RFC 7118): connect with a WebSocket and the subprotocol \"sip\""
	case !slices.Contains(websocket.Subprotocols(r), Subprotocol):
		return refusedSubprotocol, http.StatusBadRequest, "send Sec-WebSocket-Protocol: sip (RFC 7118 section 4.1), in a browser: new WebSocket(url, \"sip\")"
	// RFC 6455 §10.2 and TS 33.203 X.2: only pages of listed origins may connect.
	case origin == "" && !p.cfg.AllowNoOrigin:
		return refusedNoOrigin, http.StatusForbidden, "send an Origin header: this server admits the pages of " + p.originList() + " only"
	case origin != "" && !p.origins[origin]:
		return refusedOrigin, http.StatusForbidden, "this origin is not admitted; admitted are " + p.originList()
	case p.isDraining():
		return refusedDraining, http.StatusServiceUnavailable, "the server is shutting down: connect again in a moment"
	case p.flows.len() >= p.cfg.Limits.Flows:
		return refusedFlows, http.StatusServiceUnavailable, "the server has as many connections as it takes: try again later"
	case !p.sources.enter(addressOf(r.RemoteAddr), p.cfg.Limits.FlowsPerAddress):
		return refusedAddress, http.StatusServiceUnavailable, "this address has as many connections as one may have: close some, or try again later"
	}
	return "", 0, ""
}

func (p *Proxy) originList() string {
	if len(p.cfg.Origins) == 0 {
		return "(none)"
	}
	return strings.Join(p.cfg.Origins, ", ")
}
