package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/store/bolt"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Fleet are relays in processes of their own, which an edge gives credentials to.
type Fleet struct {
	Interface
	Relays []FleetRelay
	Spare  int    // how many relays beyond the chosen one get each credential
	Region string // of this edge
	// Registry says that relays come from a registry too, so that there may be none yet.
	Registry bool
}

// journal is what the fleet could not deliver, and this life of the edge.
type journal struct {
	store *bolt.Store
	epoch uint64
}

// openJournal makes the state directory of an edge, or of a WAF, and begins another life in it.
func openJournal(f *Interface, deployment turncred.Secret) (*journal, error) {
	if err := f.makeStateDir(); err != nil {
		return nil, err
	}
	fail := func(err error) (*journal, error) { return nil, fmt.Errorf("%s: %w", f.From, err) }
	keks, err := stateKEKs(deployment, "journal")
	if err != nil {
		return fail(err)
	}
	// The journal first: its lock keeps a second process from the epoch.
	s, err := bolt.Open(context.Background(), bolt.Config{File: filepath.Join(f.StateDir, "journal.db"), KEKs: keks})
	if err != nil {
		return fail(err)
	}
	epoch, err := push.NextEpoch(filepath.Join(f.StateDir, "epoch"), time.Now())
	if err != nil {
		return fail(errors.Join(err, s.Close()))
	}
	return &journal{s, epoch}, nil
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.store.Close()
}

// wireFleet wires the relays; without a journal, to check the configuration only.
func (t *turnSide) wireFleet(cfg Config, j *journal, reg prometheus.Registerer) (err error) {
	f := cfg.Fleet
	if f.ours() {
		if err := f.CheckCertificate(push.RoleEdge); err != nil {
			return err
		}
	}
	set := push.FleetConfig{
		Domain: f.Domain, Name: f.Name, Epoch: 1, Keys: interfaceKeys{&f.Interface}, Spare: f.Spare, Region: f.Region,
		Journal: unopenedJournal{}, Logger: cfg.Logger, Metrics: reg,
	}
	if set.Relays, t.coturns, err = newCoturns(f, t.realm, t.codec, cfg.Logger); err != nil {
		return err
	}
	set.Event = followed(cfg.Logger, set.Relays, reg)
	if j != nil {
		set.Epoch, set.Journal = j.epoch, j.store.Journal()
	}
	for _, r := range f.Relays {
		t.uris, t.listed = append(t.uris, r.URIs...), append(t.listed, r.Name)
	}
	set.Empty = f.Registry
	t.fleet, err = push.NewFleet(context.Background(), set)
	return err
}

// followed counts and logs what happens at the relays, so that the edge knows who uses what.
func followed(log *slog.Logger, relays []push.RelayConfig, reg prometheus.Registerer) func(string, push.Event) {
	count := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "epcscf_push_events_total", Help: "Events of the relays' allocations; gap: some were lost.",
	}, []string{"relay", "type"})
	reg.MustRegister(count)
	for _, r := range relays {
		for _, t := range []push.EventType{push.EventAllocated, push.EventBytes, push.EventEnded, push.EventGap} {
			count.WithLabelValues(r.Name, string(t))
		}
	}
	return func(relay string, e push.Event) {
		switch e.Type {
		case push.EventAllocated, push.EventBytes, push.EventEnded, push.EventGap:
		default: // a younger relay's
			return
		}
		count.WithLabelValues(relay, string(e.Type)).Inc()
		log.Debug("allocation at a relay", "relay", relay, "type", e.Type, "tid", e.Tid, "subject", e.Subject, "relayed", e.Relayed,
			"reason", e.Reason, "to_peers", e.ToPeers, "from_peers", e.FromPeers)
	}
}

// unopenedJournal is the journal of a fleet that never runs.
type unopenedJournal struct{}

func (unopenedJournal) Add(context.Context, string, turncred.Revocation) (uint64, error) {
	return 0, errors.New("the journal is not open")
}

func (unopenedJournal) Done(context.Context, ...uint64) error { return nil }

func (unopenedJournal) Pending(context.Context, func(uint64, string, turncred.Revocation) error) error {
	return nil
}
