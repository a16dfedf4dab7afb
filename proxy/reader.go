package proxy

import "sync/atomic"

// idleReaders is how many readers wait for a flow at most. They are enough where as many
// flows are parked as are woken, and cost half a MiB.
const idleReaders = 32

// readers are the goroutines that read for the flows that are not parked. There is one for
// each, so that no slow WIC holds up another. One whose flow is parked or has ended waits a
// while for the next, since its stack has the size that reading takes: to grow one costs as
// much as a sixth of a registration.
type readers struct {
	next chan *Flow
	idle atomic.Int32
}

func (r *readers) init() { r.next = make(chan *Flow) }

// read lets a reader serve f. Somebody must hold p.work: f, or who starts f.
func (p *Proxy) read(f *Flow) {
	select {
	case p.readers.next <- f:
	default:
		p.work.Go(func() { p.readOn(f) })
	}
}

// readOn serves f and whatever is woken then.
func (p *Proxy) readOn(f *Flow) {
	for r := &p.readers; f != nil; {
		f.serve()
		f = nil
		if r.idle.Add(1) <= idleReaders {
			select {
			case f = <-r.next:
			case <-p.ctx.Done():
			}
		}
		r.idle.Add(-1)
	}
}
