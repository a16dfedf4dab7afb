package proxy

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/emiago/sipgo/sip"
)

// errSilent says that a hop has not answered a request of ours in time.
var errSilent = errors.New("no answer")

// ask sends a request of our own, no INVITE, and returns its final response. A hop that says
// 503, or nothing for as long as a WIC's request would wait for it, is left for the next one
// (RFC 3263 §4.3).
func (p *Proxy) ask(ctx context.Context, req *sip.Request, hops *hopSet, key uint64) (res *sip.Response, err error) {
	up, _ := hops.wait(ctx, key)
	err = errAllDown
	for i, h := range up {
		began := time.Now()
		last := i == len(up)-1
		res, err = p.askHop(ctx, req.Clone(), h, last)
		switch {
		case err == nil && (last || res.StatusCode != sip.StatusServiceUnavailable), ctx.Err() != nil:
			return res, err
		case err == nil:
			h.kick()
		case errors.Is(err, errSilent):
			h.failed(began, hopSilent, err)
		default:
			h.failed(began, hopUnreachable, err)
		}
	}
	return res, err
}

// askHop is ask at one hop. Of the last one it is waited for until the transaction ends.
func (p *Proxy) askHop(ctx context.Context, req *sip.Request, h *hop, last bool) (*sip.Response, error) {
	to, err := p.core.open(h)
	if err != nil {
		return nil, err
	}
	p.pushVia(req, to, "")
	c, err := p.startClientTx(req, p.core.fitRequest(h, req, to), nil, nil)
	if err != nil {
		return nil, err
	}
	defer c.Terminate()
	var silence <-chan time.Time
	if !last {
		t := time.NewTimer(p.cfg.Core.Failover)
		defer t.Stop()
		silence = t.C
	}
	for {
		select {
		case res := <-c.Responses():
			if res.StatusCode >= 200 {
				return res, nil
			}
			silence = nil // it lives
		case <-silence:
			return nil, errSilent
		case <-c.Done():
			return nil, cmp.Or(c.Err(), errClosed)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
