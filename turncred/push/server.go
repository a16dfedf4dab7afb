package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"epcscf/turncred"
)

// ServerConfig configures a Server. Domain, Name, Realm, Keys, Table and Revoker must be set.
type ServerConfig struct {
	Domain  string         // of the deployment, in every node's certificate
	Name    string         // this relay's, for those who read an answer
	Realm   turncred.Realm // the only one that credentials may have
	Keys    Keys
	Table   *Table           // takes credentials
	Revoker turncred.Revoker // takes revocations; when it returns nil they are on disk
	// Writers may ask and write, each what its role may; default: edges and WAFs. An edge that
	// serves lets WAFs in alone.
	Writers []Role
	Epochs  *Epochs   // default: in memory
	Events  *EventLog // default: one that stays empty

	// Status says what the answer to a digest does, beyond the sums; default: ready.
	Status func() Status
	// Contact is called for each request of an edge that is let in.
	Contact func()

	Logger  *slog.Logger          // default: none
	Metrics prometheus.Registerer // nil registers none
	Now     func() time.Time      // default time.Now
}

// Status is what a relay says of itself.
type Status struct {
	Ready    bool
	Draining bool
	Keys     []turncred.KeyID
}

// Server is a relay's side of the credential interface.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	metrics *serverMetrics
	http    *http.Server
	stop    context.CancelFunc // ends streams

	mu    sync.Mutex // guards books and the revocations in them
	books map[Peer]*book
}

// book is what a node has written in its present life.
type book struct {
	epoch       uint64
	credentials tally // the table's lock guards it
	revocations revocationSet
}

// NewServer checks cfg.
func NewServer(cfg ServerConfig) (*Server, error) {
	switch {
	case cfg.Domain == "":
		return nil, errors.New("push server: Domain is not set")
	case CheckPeerName(cfg.Name) != nil:
		return nil, fmt.Errorf("push server: Name: %w", CheckPeerName(cfg.Name))
	case cfg.Realm == "":
		return nil, errors.New("push server: Realm is not set")
	case cfg.Keys == nil:
		return nil, errors.New("push server: Keys is not set")
	case cfg.Table == nil:
		return nil, errors.New("push server: Table is not set")
	case cfg.Revoker == nil:
		return nil, errors.New("push server: Revoker is not set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Status == nil {
		cfg.Status = func() Status { return Status{Ready: true} }
	}
	if cfg.Contact == nil {
		cfg.Contact = func() {}
	}
	if cfg.Writers == nil {
		cfg.Writers = writers
	}
	var err error
	if cfg.Epochs == nil {
		if cfg.Epochs, err = OpenEpochs(""); err != nil {
			return nil, err
		}
	}
	if cfg.Events == nil {
		if cfg.Events, err = NewEventLog(cfg.Now); err != nil {
			return nil, err
		}
	}
	s := &Server{cfg: cfg, log: cfg.Logger, metrics: newServerMetrics(cfg.Metrics), books: map[Peer]*book{}}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.http = s.newHTTP(ctx)
	return s, nil
}

// Limits of the interface's connections: a deployment has some edges, not thousands.
const (
	maxConnections = 1024
	maxStreams     = 256
)

func (s *Server) newHTTP(ctx context.Context) *http.Server {
	h := &http.Server{
		Handler: s.Handler(), TLSConfig: ServerTLS(s.cfg.Keys), Protocols: new(http.Protocols),
		ReadHeaderTimeout: handshakeTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 8 << 10,
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: maxStreams, PingTimeout: 5 * time.Second, SendPingTimeout: 15 * time.Second},
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, trustKey{}, &trust{})
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	h.Protocols.SetHTTP2(true)
	return h
}

// Serve takes requests until Close or Shutdown; it then returns nil.
func (s *Server) Serve(ln net.Listener) error {
	err := s.http.ServeTLS(netutil.LimitListener(ln, maxConnections), "", "")
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown ends the streams, lets the requests that are under way end, and closes.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	return s.http.Shutdown(ctx)
}

// Close closes every connection.
func (s *Server) Close() error {
	s.stop()
	return s.http.Close()
}

// bookOf returns the book of a peer's life; the error is a *Problem.
func (s *Server) bookOf(p Peer, epoch uint64) (*book, *Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.books[p]; b != nil && b.epoch == epoch {
		return b, nil
	}
	known, err := s.cfg.Epochs.advance(p, epoch)
	if err != nil {
		s.log.Error("credential interface: cannot keep a node's epoch", "node", p.String(), "err", err)
		return nil, problem(http.StatusServiceUnavailable, CauseUnavailable, "the relay cannot write to its disk")
	}
	if known != epoch {
		pr := problem(http.StatusConflict, CauseStaleEpoch, "epoch %d is over: %s writes with %d", epoch, p, known)
		pr.Epoch = known
		return nil, pr
	}
	b := &book{epoch: epoch, credentials: tally{}, revocations: newRevocationSet()}
	s.books[p] = b
	s.log.Info("credential interface: a node begins to write", "node", p.String(), "epoch", epoch)
	return b, nil
}

// state answers a digest for a peer: what is good beyond the minute m.
func (s *Server) state(p Peer, m int64) State {
	now := s.cfg.Now()
	status := s.cfg.Status()
	st := State{
		Relay: s.cfg.Name, Epoch: s.cfg.Epochs.get(p), Time: now,
		Draining: status.Draining, Ready: status.Ready, Keys: status.Keys,
	}
	s.mu.Lock()
	b := s.books[p]
	if b != nil {
		st.Revocations = b.revocations.tally.after(m, forgotten(now))
	}
	s.mu.Unlock()
	if b != nil {
		st.Credentials = s.cfg.Table.sum(b, m)
	}
	return st
}

// revoke takes a revocation from the node of a book. The error is a *Problem.
func (s *Server) revoke(ctx context.Context, b *book, r turncred.Revocation) *Problem {
	now := s.cfg.Now()
	if r.Until.After(now.Add(maxLife)) {
		return problem(http.StatusBadRequest, CauseFormat, "until: over %v ahead, when nothing is good any more", maxLife)
	}
	if err := s.cfg.Revoker.Revoke(ctx, r); err != nil {
		s.log.Error("credential interface: revocation not kept", "err", err)
		return problem(http.StatusServiceUnavailable, CauseUnavailable, "the relay could not keep the revocation")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.revocations.add(normal(r), now)
	return nil
}

// maxLife bounds how long anything that is written stays: a credential lives a day at
// most, and clocks differ.
const maxLife = 24*time.Hour + 5*time.Minute

// put takes credentials from the node of a book; an error is a *Problem, in the order of rs.
func (s *Server) put(ctx context.Context, b *book, rs []Record) []*Problem {
	problems := make([]*Problem, len(rs))
	now := s.cfg.Now()
	var good []Record
	var at []int
	for i, r := range rs {
		switch {
		case r.Realm != s.cfg.Realm:
			problems[i] = problem(http.StatusBadRequest, CauseFormat, "realm %.64q: this relay's is %q", r.Realm, s.cfg.Realm)
		case r.Texp.After(now.Add(maxLife)):
			problems[i] = problem(http.StatusBadRequest, CauseFormat, "texp: over %v ahead", maxLife)
		default:
			good, at = append(good, r), append(at, i)
		}
	}
	start := time.Now()
	for i, err := range s.cfg.Table.put(ctx, b, good) {
		switch {
		case errors.Is(err, ErrConflict):
			problems[at[i]] = problem(http.StatusConflict, CauseConflict, "the Tid was written before with another body")
		case err != nil:
			s.log.Error("credential interface: credential not kept", "kid", good[i].Tid.KeyID(), "err", err)
			problems[at[i]] = problem(http.StatusServiceUnavailable, CauseUnavailable, "the relay could not keep the credential")
		}
	}
	s.metrics.kept.Observe(time.Since(start).Seconds())
	return problems
}
