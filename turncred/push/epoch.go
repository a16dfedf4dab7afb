package push

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrStaleEpoch says that a node of the same name began its life later: two processes
// have one certificate, or an old request was sent again.
var ErrStaleEpoch = errors.New("push: a younger process of this name writes")

// NextEpoch begins another life of a node: it returns a number above that in the file,
// and above those of earlier lives should the file be lost, since it is the time where
// that is later. The file has it when NextEpoch returns.
func NextEpoch(file string, now time.Time) (uint64, error) {
	var last uint64
	text, err := os.ReadFile(file)
	switch {
	case err == nil:
		if last, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63); err != nil {
			return 0, fmt.Errorf("%s: holds no epoch: remove the file if the clock of this host is right", file)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return 0, err
	}
	epoch := max(last+1, uint64(max(now.Unix(), 0)))
	return epoch, writeSynced(file, fmt.Appendf(nil, "%d\n", epoch))
}

// Epochs are the epochs of the nodes that write to a relay, kept in a file through
// restarts. Safe for concurrent use.
type Epochs struct {
	file string // "": in memory only

	mu    sync.Mutex // guards known
	known map[string]uint64
}

// OpenEpochs reads a file, which need not be there yet; "" keeps epochs in memory only.
func OpenEpochs(file string) (*Epochs, error) {
	e := &Epochs{file: file, known: map[string]uint64{}}
	if file == "" {
		return e, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &e.known)
	}
	if err != nil {
		return nil, fmt.Errorf("epochs: %s: %w", file, err)
	}
	return e, nil
}

// get returns a node's epoch; 0: none is known.
func (e *Epochs) get(p Peer) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[p.String()]
}

// advance takes epoch if it is the node's latest; known is the latest. It returns when a
// later one is on disk.
func (e *Epochs) advance(p Peer, epoch uint64) (known uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.known[p.String()]
	if epoch <= old {
		return old, nil
	}
	e.known[p.String()] = epoch
	if e.file == "" {
		return epoch, nil
	}
	text, err := json.Marshal(e.known)
	if err == nil {
		err = writeSynced(e.file, text)
	}
	if err != nil {
		e.known[p.String()] = old
		return old, fmt.Errorf("keep epochs: %w", err)
	}
	return epoch, nil
}

// writeSynced replaces a file in one step, which a power cut does not undo.
func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
