package proxy

import "sync"

// flowTable holds the live flows by number.
type flowTable struct {
	mu    sync.RWMutex // guards next and flows
	next  uint64
	flows map[uint64]*Flow
}

func (t *flowTable) init() { t.flows = map[uint64]*Flow{} }

// add numbers the flow, as no later flow of this process is numbered. 0 is the core.
func (t *flowTable) add(f *Flow, seal func(uint64) FlowToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	f.id, f.token = t.next, seal(t.next)
	t.flows[f.id] = f
}

func (t *flowTable) remove(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.flows, id)
}

func (t *flowTable) get(id uint64) *Flow {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.flows[id]
}

func (t *flowTable) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.flows)
}

func (t *flowTable) all() []*Flow {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]*Flow, 0, len(t.flows))
	for _, f := range t.flows {
		all = append(all, f)
	}
	return all
}
