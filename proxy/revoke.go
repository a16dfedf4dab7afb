package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"epcscf/turncred"
)

// Why credentials are taken back.
const (
	causeDeregistered = "deregistered"
	causeExpired      = "expired"
	causeFlowLost     = "flow-lost"
	causeNetwork      = "network" // the core ended the registration (RFC 3680)
	causeToken        = "token"   // the WAF revoked the token that the registration stood on
)

// What became of a revocation.
const (
	revokedAtOnce = "done"
	revokedLate   = "late" // the relay was told at a later try
	revokedLost   = "lost" // it was never told: what was issued lives until its own end
)

// revoke tells the relay that credentials have lost their reason, and waits for it. What
// the relay could not be told is tried again.
func (p *Proxy) revoke(cause string, s turncred.Scope) {
	if p.cfg.Provisioner == nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, provisionTimeout)
	defer cancel()
	err := p.cfg.Provisioner.Revoke(ctx, s)
	if err == nil {
		p.metrics.revocations.WithLabelValues(cause, revokedAtOnce).Inc()
		return
	}
	var failed *turncred.RevokeError
	if !errors.As(err, &failed) || !p.untold.add(p, untoldRevocation{cause, failed}) {
		p.metrics.revocations.WithLabelValues(cause, revokedLost).Inc()
		p.log.Error("credentials not revoked: they live until their own end", "reason", cause, "err", err)
		return
	}
	p.log.Warn("credentials not revoked yet", "reason", cause, "err", err)
}

// untoldRevocation is one that the relay has not heard.
type untoldRevocation struct {
	cause  string
	failed *turncred.RevokeError
}

const (
	// maxUntold bounds what a relay that is down makes us keep: some 100 bytes each.
	maxUntold = 10_000
	// firstRetry doubles up to lastRetry while the relay stays silent.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// untoldQueue holds revocations until the relay has heard them, or until they matter no
// more. A goroutine runs only while there are any.
type untoldQueue struct {
	mu      sync.Mutex // guards all below
	queue   []untoldRevocation
	working bool
}

// add reports false where the queue is full or the edge is closed.
func (q *untoldQueue) add(p *Proxy, u untoldRevocation) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) >= maxUntold {
		return false
	}
	if !q.working && !p.start(func() { q.work(p) }) {
		return false
	}
	q.working = true
	q.queue = append(q.queue, u)
	p.metrics.untold.Set(float64(len(q.queue)))
	return true
}

// next returns the head, or ends the work where there is none.
func (q *untoldQueue) next() (untoldRevocation, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		q.working, q.queue = false, nil
		return untoldRevocation{}, false
	}
	return q.queue[0], true
}

// settle takes the head away, or puts it last: one that the relay refuses for a reason of
// its own must not hold up the others.
func (q *untoldQueue) settle(p *Proxy, again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.queue[0]
	q.queue = q.queue[1:]
	if again {
		q.queue = append(q.queue, u)
	}
	p.metrics.untold.Set(float64(len(q.queue)))
}

// work tries one after the other, with a pause after each failure.
func (q *untoldQueue) work(p *Proxy) {
	pause := firstRetry
	for {
		u, ok := q.next()
		if !ok {
			return
		}
		// Spread by a quarter, so that edges do not come back to a relay together.
		select {
		case <-p.ctx.Done():
			return
		case <-time.After(pause + rand.N(pause/4)): //nolint:gosec // G404: spreads load, guards nothing
		}
		if !p.cfg.Now().Before(u.failed.Until) {
			p.metrics.revocations.WithLabelValues(u.cause, revokedLost).Inc()
			p.log.Error("credentials were not revoked: they have ended by themselves", "reason", u.cause, "err", u.failed.Err)
			q.settle(p, false)
			continue
		}
		ctx, cancel := context.WithTimeout(p.ctx, provisionTimeout)
		err := u.failed.Again(ctx)
		cancel()
		if err != nil {
			q.settle(p, true)
			pause = min(2*pause, lastRetry)
			continue
		}
		p.metrics.revocations.WithLabelValues(u.cause, revokedLate).Inc()
		p.log.Info("credentials revoked at a later try", "reason", u.cause)
		q.settle(p, false)
		pause = time.Millisecond // the relay is back: the rest follows
	}
}
