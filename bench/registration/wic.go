package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket" //nolint:depguard // the load comes from outside, as a browser's does

	"epcscf/sipext"
)

// answerWithin bounds how long a flow waits for the final response to a REGISTER.
const answerWithin = 20 * time.Second

// wic is one flow with one registration that it refreshes.
type wic struct {
	ws         *websocket.Conn
	credential string // the header that a 200 must carry
	id         int
	cseq       int
	before     string // of a REGISTER, until the branch
	between    string // from the branch to CSeq
	after      string // the rest
}

var errNoCredential = errors.New("the 200 carries no credential")

// dial opens a flow to the WSS listener at addr.
func dial(ctx context.Context, addr string, roots *x509.CertPool, id int, credential string) (*wic, error) {
	d := websocket.Dialer{
		NetDialContext:   (&net.Dialer{LocalAddr: sourceOf(id)}).DialContext,
		TLSClientConfig:  &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		Subprotocols:     []string{"sip"},
		HandshakeTimeout: 30 * time.Second,
		ReadBufferSize:   1 << 10, WriteBufferSize: 4 << 10, WriteBufferPool: writeBuffers,
	}
	ws, res, err := d.DialContext(ctx, "wss://"+addr+"/ws", nil)
	if err != nil {
		if res != nil {
			err = fmt.Errorf("%w: %s", err, res.Status)
		}
		return nil, err
	}
	return newWIC(ws, id, credential), nil
}

// sourceOf spreads the WICs over addresses of loopback, as users are spread over networks:
// an edge may limit what one address opens.
func sourceOf(id int) net.Addr {
	const hosts = 100 // so many addresses in each 127.1.n.0
	return &net.TCPAddr{IP: net.IPv4(127, 1, byte(id/hosts%256), byte(1+id%hosts))}
}

// writeBuffers keeps 10,000 idle flows of this process small.
var writeBuffers = &sync.Pool{}

// newWIC prepares the REGISTER, of which only the branch and the CSeq change. Its Digest
// response is fixed: the core stub takes every one.
func newWIC(ws *websocket.Conn, id int, credential string) *wic {
	user, host := fmt.Sprintf("user%d", id), fmt.Sprintf("h%d.invalid", id)
	aor := "sip:" + user + "@" + domain
	w := &wic{ws: ws, id: id, credential: credential}
	w.before = "REGISTER sip:" + domain + " SIP/2.0\r\nVia: SIP/2.0/WSS " + host + ";branch=z9hG4bK"
	w.between = ";rport\r\nMax-Forwards: 70\r\nFrom: <" + aor + ">;tag=f" + strconv.Itoa(id) +
		"\r\nTo: <" + aor + ">\r\nCall-ID: call-" + strconv.Itoa(id) + "@" + host + "\r\nCSeq: "
	w.after = " REGISTER\r\nContact: <sip:" + user + "@" + host + ";transport=ws>;reg-id=1" +
		fmt.Sprintf(";+sip.instance=\"<urn:uuid:00000000-0000-4000-8000-%012x>\"", id) + ";expires=600\r\n" +
		"Supported: path, gruu, outbound\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, MESSAGE, INFO, UPDATE, REFER\r\n" +
		"User-Agent: registration bench\r\n" +
		"Authorization: Digest username=\"" + user + "@" + domain + "\", realm=\"" + domain +
		"\", nonce=\"4f1a2b3c4d5e6f708192a3b4c5d6e7f8\", uri=\"sip:" + domain +
		"\", response=\"0123456789abcdef0123456789abcdef\", algorithm=MD5, qop=auth, cnonce=\"0a4f113b\", nc=00000001\r\n" +
		sipext.TurnCredHeader + ": request\r\nContent-Length: 0\r\n\r\n"
	return w
}

// register refreshes the registration and waits for the answer. The error wraps
// errNoCredential where only that was missing.
func (w *wic) register() error {
	w.cseq++
	n := strconv.Itoa(w.cseq)
	msg := w.before + strconv.Itoa(w.id) + "-" + n + w.between + n + w.after
	_ = w.ws.SetWriteDeadline(time.Now().Add(answerWithin))
	if err := w.ws.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
		return err
	}
	_ = w.ws.SetReadDeadline(time.Now().Add(answerWithin))
	for {
		_, data, err := w.ws.ReadMessage()
		if err != nil {
			return err
		}
		if status, ok := answersTo(data, n); ok && status != "100" {
			return w.check(status, data)
		}
	}
}

// answersTo reads the status of a response to the REGISTER with that CSeq number.
func answersTo(msg []byte, cseq string) (status string, ok bool) {
	line, _, _ := bytes.Cut(msg, []byte("\r\n"))
	f := strings.Fields(string(line))
	if len(f) < 2 || f[0] != "SIP/2.0" {
		return "", false
	}
	return f[1], header(msg, "CSeq") == cseq+" REGISTER"
}

func (w *wic) check(status string, msg []byte) error {
	if status != "200" {
		line, _, _ := bytes.Cut(msg, []byte("\r\n"))
		return fmt.Errorf("the edge answered %s", line)
	}
	value := header(msg, w.credential)
	if value == "" {
		return errNoCredential
	}
	if w.credential != sipext.TurnCredHeader {
		return nil
	}
	// Read strictly the first time; then it is enough that it is no unavailable.
	if w.cseq > 1 && !strings.HasPrefix(value, string(sipext.KindUnavailable)) {
		return nil
	}
	switch c, err := sipext.ParseTurnCred(value); {
	case err != nil:
		return fmt.Errorf("%w: %w", errNoCredential, err)
	case c.Kind != sipext.KindCredential || len(c.URIs) == 0:
		return fmt.Errorf("%w: it says %v", errNoCredential, c)
	}
	return nil
}

// header returns the value of the first row of that name.
func header(msg []byte, name string) string {
	for line := range bytes.SplitSeq(msg, []byte("\r\n")) {
		n, v, ok := bytes.Cut(line, []byte(":"))
		if ok && len(n) == len(name) && strings.EqualFold(string(n), name) {
			return strings.Trim(string(v), " \t")
		}
	}
	return ""
}

// idle answers the edge's pings until the flow ends.
func (w *wic) idle() {
	_ = w.ws.SetReadDeadline(time.Time{})
	for {
		if _, _, err := w.ws.ReadMessage(); err != nil {
			return
		}
	}
}

func (w *wic) close() { _ = w.ws.NetConn().Close() }
