package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

const (
	// answerWithin is how long a WIC waits for the answer to a REGISTER: longer than the edge
	// may wait for relays, and its store.
	answerWithin = 10 * time.Second
	// leaveAfter is after how many registrations a WIC de-registers.
	leaveAfter = 12
)

// handedOut is a credential that came in a 200.
type handedOut struct {
	username, password string
	uris               []string
	state              atomic.Int32
}

const (
	good    int32 = iota // whoever is named in uris must take it
	leaving              // it may be revoked, or not
	revoked              // no relay may take it
)

// chaosWIC is a user's device. It registers again and again at its home edge, or at the
// other one while that is away, and now and then it de-registers.
type chaosWIC struct {
	l    *chaosLoad
	id   int
	home int

	edge  int // that ws leads to
	life  int64
	ws    *websocket.Conn
	cseq  int
	times int
	has   []*handedOut // since it registered
}

// run registers once each period until ctx ends.
func (c *chaosWIC) run(ctx context.Context, period, first time.Duration) {
	defer c.close()
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		c.turn(ctx)
		timer.Reset(max(0, period-time.Since(start)))
	}
}

func (c *chaosWIC) close() {
	if c.ws != nil {
		_ = c.ws.NetConn().Close()
		c.ws = nil
	}
}

func (c *chaosWIC) turn(ctx context.Context) {
	if c.ws != nil && c.edge != c.home && c.l.edges[c.home].up.Load() {
		c.close() // and what it has from there ends with that edge's flow_grace
		c.forget(leaving)
	}
	if c.ws == nil && !c.open(ctx) {
		return
	}
	if c.times++; c.times%leaveAfter == c.id%leaveAfter {
		c.leave()
		return
	}
	cred, err := c.register(600)
	if err != nil {
		c.failed(err)
		return
	}
	c.l.registered.Add(1)
	if cred.Kind != sipext.KindCredential {
		c.l.bare.Add(1)
		return
	}
	h := &handedOut{username: cred.Username, password: cred.Tpwd, uris: cred.URIs}
	c.has = append(c.has, h)
	c.l.handed(c.edge, h)
}

// leave de-registers: then all that it has is revoked.
func (c *chaosWIC) leave() {
	has := c.forget(leaving)
	if _, err := c.register(0); err != nil {
		c.failed(err)
		return
	}
	c.l.registered.Add(1)
	for _, h := range has {
		h.state.Store(revoked)
	}
	c.l.took(has)
}

func (c *chaosWIC) forget(state int32) (has []*handedOut) {
	has, c.has = c.has, nil
	for _, h := range has {
		h.state.Store(state)
	}
	return has
}

// failed counts what became of a REGISTER that was not answered with 200.
func (c *chaosWIC) failed(err error) {
	if c.l.edges[c.edge].life.Load() != c.life {
		c.l.cut.Add(1) // the edge was killed meanwhile
	} else {
		c.l.fail("edge%d: %v", c.edge+1, err)
	}
	c.close()
}

// open connects to the home edge, or to the other one.
func (c *chaosWIC) open(ctx context.Context) bool {
	for _, edge := range []int{c.home, 1 - c.home} {
		e := c.l.edges[edge]
		life := e.life.Load()
		if !e.up.Load() {
			continue
		}
		d := websocket.Dialer{
			// As users are spread over networks: an edge limits what one address opens.
			NetDialContext:  (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, byte(c.id/100), byte(1+c.id%100))}}).DialContext,
			TLSClientConfig: &tls.Config{RootCAs: c.l.roots}, Subprotocols: []string{"sip"}, HandshakeTimeout: answerWithin,
		}
		ws, res, err := d.DialContext(ctx, "wss://"+e.web+"/ws", nil)
		if res != nil {
			_ = res.Body.Close()
		}
		if err == nil {
			c.ws, c.edge, c.life = ws, edge, life
			return true
		}
		if ctx.Err() == nil && e.life.Load() == life {
			c.l.fail("edge%d: connect: %v", edge+1, err)
		}
	}
	return false
}

// register sends a REGISTER and returns what the 200 has for a credential.
func (c *chaosWIC) register(expires int) (sipext.TurnCred, error) {
	c.cseq++
	user, host := fmt.Sprintf("u%d", c.id), fmt.Sprintf("h%d.invalid", c.id)
	cseq := strconv.Itoa(c.cseq) + " REGISTER"
	msg := strings.Join([]string{
		"REGISTER sip:ims.test SIP/2.0",
		"Via: SIP/2.0/WSS " + host + ";branch=z9hG4bK" + user + "-" + strconv.Itoa(c.cseq) + ";rport",
		"Max-Forwards: 70", "From: <sip:" + user + "@ims.test>;tag=f" + user, "To: <sip:" + user + "@ims.test>",
		"Call-ID: " + user + "@" + host, "CSeq: " + cseq,
		fmt.Sprintf("Contact: <sip:%s@%s;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-4000-8000-%012x>\";expires=%d", user, host, c.id, expires),
		"Supported: path, outbound",
		`Authorization: Digest username="` + user + `@ims.test", realm="ims.test", nonce="4f1a2b3c4d5e6f708192a3b4c5d6e7f8", uri="sip:ims.test", response="0123456789abcdef0123456789abcdef"`,
		sipext.TurnCredHeader + ": request", "Content-Length: 0", "", "",
	}, "\r\n")
	_ = c.ws.SetWriteDeadline(time.Now().Add(answerWithin))
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
		return sipext.TurnCred{}, err
	}
	_ = c.ws.SetReadDeadline(time.Now().Add(answerWithin))
	for {
		_, data, err := c.ws.ReadMessage()
		if err != nil {
			return sipext.TurnCred{}, err
		}
		answer := string(data)
		line, rest, _ := strings.Cut(answer, "\r\n")
		if !strings.Contains(rest, "CSeq: "+cseq) || strings.HasPrefix(line, "SIP/2.0 1") {
			continue
		}
		if !strings.HasPrefix(line, "SIP/2.0 200 ") {
			return sipext.TurnCred{}, errors.New(line)
		}
		_, value, ok := strings.Cut(rest, sipext.TurnCredHeader+": ")
		if !ok {
			return sipext.TurnCred{}, nil
		}
		value, _, _ = strings.Cut(value, "\r\n")
		return sipext.ParseTurnCred(value)
	}
}
