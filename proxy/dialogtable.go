package proxy

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// dialogTable holds the dialogs of all flows. A flow without dialogs has nothing in it.
type dialogTable struct {
	mu sync.Mutex // guards what follows, every dialog in it, and Flow.dialogs
	// byID finds one dialog. Whoever claims an identity first keeps it: it holds a tag that
	// the other side has made up.
	byID map[dialogID]*dialog
	// forming finds a subscription by its one known tag: the notifier's NOTIFY may overtake
	// its 200, and several notifiers may send one (RFC 6665 §4.4.1).
	forming map[dialogID]*forming
	// byBinding finds the dialogs of a device that comes back on another flow.
	byBinding map[bindingKey][]*dialog
	count     prometheus.Gauge
}

func (t *dialogTable) init(count prometheus.Gauge) {
	t.count = count
	t.byID, t.forming, t.byBinding = map[dialogID]*dialog{}, map[dialogID]*forming{}, map[bindingKey][]*dialog{}
}

// flowDialogs is a flow's part of the table.
type flowDialogs struct {
	all     []*dialog
	forming int  // requests that may still make dialogs
	lost    bool // the flow has ended
}

// reserve makes room for one more dialog of the flow.
func (t *dialogTable) reserve(f *Flow, limit int, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.dialogs.lost {
		return false
	}
	if len(f.dialogs.all)+f.dialogs.forming >= limit {
		for _, d := range slices.Clone(f.dialogs.all) {
			if d.over(now) {
				t.removeLocked(d)
			}
		}
	}
	if len(f.dialogs.all)+f.dialogs.forming >= limit {
		return false
	}
	f.dialogs.forming++
	return true
}

// addLocked enters a dialog; it reports false where the identity is taken or the flow lost.
func (t *dialogTable) addLocked(d *dialog) bool {
	if t.byID[d.id] != nil || d.flow.dialogs.lost {
		return false
	}
	t.byID[d.id] = d
	t.count.Inc()
	d.flow.dialogs.all = append(d.flow.dialogs.all, d)
	if d.binding != (bindingKey{}) {
		t.byBinding[d.binding] = append(t.byBinding[d.binding], d)
	}
	return true
}

func (t *dialogTable) removeLocked(d *dialog) {
	if t.byID[d.id] != d {
		return
	}
	delete(t.byID, d.id)
	t.count.Dec()
	d.flow.dialogs.all = without(d.flow.dialogs.all, d)
	if d.binding == (bindingKey{}) {
		return
	}
	if left := without(t.byBinding[d.binding], d); left != nil {
		t.byBinding[d.binding] = left
	} else {
		delete(t.byBinding, d.binding)
	}
}

// without removes d; an emptied list becomes nil, so that an idle flow holds nothing.
func without(all []*dialog, d *dialog) []*dialog {
	all = slices.DeleteFunc(all, func(o *dialog) bool { return o == d })
	if len(all) == 0 {
		return nil
	}
	return all
}

// find returns a live dialog.
func (t *dialogTable) find(id dialogID, now time.Time) *dialog {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.byID[id]
	if d != nil && d.over(now) {
		t.removeLocked(d)
		return nil
	}
	return d
}

// adopt moves the dialogs of a device to the flow that it now registers on (RFC 5626 §4.2:
// same instance, same reg-id, so the new flow replaces the old).
func (t *dialogTable) adopt(k bindingKey, f *Flow) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	moved := 0
	for _, d := range t.byBinding[k] {
		if d.flow == f || f.dialogs.lost {
			continue
		}
		d.flow.dialogs.all = without(d.flow.dialogs.all, d)
		d.flow = f
		f.dialogs.all = append(f.dialogs.all, d)
		moved++
	}
	return moved
}

// lose marks the flow as ended and reports whether dialogs are left on it. Early ones go
// with their transactions.
func (t *dialogTable) lose(f *Flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.dialogs.lost = true
	return len(f.dialogs.all) > 0
}

// take removes the dialogs of a flow, or those of one device on it, and returns them.
func (t *dialogTable) take(f *Flow, of *bindingKey) []*dialog {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*dialog
	for _, d := range f.dialogs.all {
		if of == nil || d.binding == *of {
			all = append(all, d)
		}
	}
	for _, d := range all {
		t.removeLocked(d)
	}
	return all
}
