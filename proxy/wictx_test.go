package proxy

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// sink is a connection that keeps what is written.
type sink struct {
	noRef
	sent []sip.Message
	err  error
}

func (s *sink) WriteMsg(m sip.Message) error { s.sent = append(s.sent, m); return s.err }
func (s *sink) LocalAddr() net.Addr          { return nil }
func (s *sink) Close() error                 { return nil }

func requestOf(t *testing.T, method string) *sip.Request {
	t.Helper()
	m, err := sip.ParseMessage([]byte(lines(method+" sip:a@b.invalid SIP/2.0", "Via: SIP/2.0/WSS edge;branch=z9hG4bK1", "Via: SIP/2.0/UDP core;branch=z9hG4bK2",
		"Route: <sip:x;lr>", "From: <sip:c@d>;tag=1", "To: <sip:a@b>", "Call-ID: 1", "CSeq: 7 "+method)))
	if err != nil {
		t.Fatal(err)
	}
	return m.(*sip.Request)
}

// TestWICTxDeadlines: Timer B and F are 128 s toward a UE (TS 24.229 7.7, known to us by
// digests); a provisional response ends Timer B alone (RFC 3261 §17.1.1.2, §17.1.2.2).
func TestWICTxDeadlines(t *testing.T) {
	for _, tt := range []struct {
		method      string
		provisional bool
		want        time.Duration // 0: none
	}{
		{"INVITE", false, 128 * time.Second},
		{"INVITE", true, 0},
		{"MESSAGE", false, 128 * time.Second},
		{"MESSAGE", true, 128 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			req := requestOf(t, tt.method)
			var l Limits
			l.setDefaults()
			x := newWICTx(req, &sink{}, l.Answer)
			start := time.Now()
			if err := x.Init(); err != nil {
				t.Fatal(err)
			}
			if tt.provisional {
				go x.Receive(newReply(req).response(180, "Ringing"))
				<-x.Responses()
			}
			if tt.want == 0 {
				time.Sleep(time.Hour)
				x.Terminate()
				if err := x.Err(); !errors.Is(err, sip.ErrTransactionCanceled) {
					t.Errorf("%s that rings ended with %v", tt.method, err)
				}
				return
			}
			<-x.Done()
			if got := time.Since(start); got != tt.want || !errors.Is(x.Err(), sip.ErrTransactionTimeout) {
				t.Errorf("%s: ended after %v with %v, want %v", tt.method, got, x.Err(), tt.want)
			}
		})
	}
}

// TestWICTxEnds: RFC 3261 §17.1.1.3 and RFC 6026 §7.2.
func TestWICTxEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, conn := requestOf(t, "INVITE"), &sink{}
		x := newWICTx(inv, conn, time.Minute)
		ended := 0
		x.OnTerminate(func(string, error) { ended++ })
		_ = x.Init()
		busy := newReply(inv).response(486, "Busy Here")
		go x.Receive(busy)
		<-x.Responses()
		<-x.Done()
		ack := conn.sent[1].(*sip.Request)
		if ack.Method != sip.ACK || len(sipext.Rows(ack, "Via")) != 1 || ack.Via().Value() != inv.Via().Value() || ack.CSeq().SeqNo != 7 ||
			first(ack, "To") != first(busy, "To") || first(ack, "Route") != "<sip:x;lr>" || first(ack, "Call-ID") != "1" {
			t.Errorf("the ACK of a 486 is\n%s", ack)
		}

		x = newWICTx(inv, conn, time.Minute)
		late := 0
		x.OnRetransmission(func(*sip.Response) { late++ })
		_ = x.Init()
		go x.Receive(newReply(inv).response(200, "OK"))
		<-x.Responses()
		synctest.Wait()
		x.Receive(newReply(inv).response(200, "OK"))
		x.Receive(newReply(inv).response(486, "Busy Here")) // after the 2xx it is nobody's
		<-x.Done()
		if late != 1 || ended != 1 {
			t.Errorf("%d late 2xx, %d ends told; want one of each", late, ended)
		}

		broken := &sink{err: net.ErrClosed}
		if err := newWICTx(inv, broken, time.Minute).Init(); !errors.Is(err, sip.ErrTransactionTransport) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Init on a closed flow: %v", err)
		}
	})
}
