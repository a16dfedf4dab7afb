package relay

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// logLines is how many lines a second the relay writes at most: each datagram of a
// stranger must not become a line.
const logLines = 10

// limitedHandler passes at most logLines records in any second and tells the next one how
// many went missing.
type limitedHandler struct {
	slog.Handler
	w *logWindow
}

type logWindow struct {
	mu         sync.Mutex // guards the fields below
	last       [logLines]time.Time
	next       int
	suppressed int
}

func limitLog(l *slog.Logger) *slog.Logger {
	return slog.New(limitedHandler{l.Handler(), &logWindow{}})
}

// admit reports whether a record at now may pass, and how many did not since the last.
func (w *logWindow) admit(now time.Time) (suppressed int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.last[w.next]) < time.Second { // the tenth line before this one
		w.suppressed++
		return 0, false
	}
	w.last[w.next] = now
	w.next = (w.next + 1) % logLines
	suppressed, w.suppressed = w.suppressed, 0
	return suppressed, true
}

// Handle implements slog.Handler.
func (h limitedHandler) Handle(ctx context.Context, r slog.Record) error {
	suppressed, ok := h.w.admit(r.Time)
	if !ok {
		return nil
	}
	if suppressed > 0 {
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h limitedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limitedHandler{h.Handler.WithAttrs(attrs), h.w}
}

// WithGroup implements slog.Handler.
func (h limitedHandler) WithGroup(name string) slog.Handler {
	return limitedHandler{h.Handler.WithGroup(name), h.w}
}
