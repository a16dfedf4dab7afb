package memory

import (
	"context"
	"testing"

	"epcscf/store"
	"epcscf/store/internal/keyvalue"
	"epcscf/store/storetest"
)

// world keeps the tables when a store is closed.
type world struct{ e *engine }

func (w world) Open(cfg storetest.Config) (store.Store, error) {
	s, err := keyvalue.New(context.Background(), w.e, cfg.KEKs, cfg.Now)
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.World { return world{newEngine()} })
}
