package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"epcscf/store"
	"epcscf/store/storetest"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

func TestMain(m *testing.M) {
	if dir := storetest.ChildPath(); dir != "" {
		l, err := Open(Config{Dir: dir, KEKs: newKEKs(storetest.KEK("kek1", 1))})
		if err != nil {
			panic(err)
		}
		storetest.WriteUntilKilled(l.Put)
	}
	goleak.VerifyTestMain(m)
}

func newKEKs(current store.KEK, older ...store.KEK) *store.KEKs {
	keks, err := store.NewKEKs(current, older...)
	if err != nil {
		panic(err)
	}
	return keks
}

// fixture is a log of one directory.
type fixture struct {
	*testing.T
	cfg   Config
	clock storetest.Clock
	l     *Log
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t}
	f.cfg = Config{Dir: filepath.Join(t.TempDir(), "log"), KEKs: newKEKs(storetest.KEK("kek1", 1)), Now: f.clock.Now, SegmentSize: 4000}
	f.reopen()
	t.Cleanup(func() { f.ok(f.l.Close()) })
	return f
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) reopen() {
	f.Helper()
	if f.l != nil {
		f.ok(f.l.Close())
	}
	l, err := Open(f.cfg)
	f.ok(err)
	f.l = l
}

// put writes records that live for some minutes; their Tids say for how many.
func (f *fixture) put(name string, minutes ...int) {
	f.Helper()
	var rs []push.Record
	for _, m := range minutes {
		rs = append(rs, storetest.Credential(turncred.Tid(fmt.Sprintf("k1-%s-%d", name, m)), storetest.Epoch.Add(time.Duration(m)*time.Minute)))
	}
	f.ok(f.l.Put(f.Context(), rs))
}

// want checks what Load gives.
func (f *fixture) want(tids ...turncred.Tid) {
	f.Helper()
	got := map[turncred.Tid]bool{}
	f.ok(f.l.Load(f.Context(), func(r push.Record) error {
		if !store.SameRecord(r, storetest.Credential(r.Tid, r.Texp)) {
			f.Errorf("%s came back as %+v", r.Tid, r)
		}
		got[r.Tid] = true
		return nil
	}))
	slices.Sort(tids)
	if g := slices.Sorted(maps.Keys(got)); !slices.Equal(g, tids) {
		f.Fatalf("there are %v, want %v", g, tids)
	}
}

func (f *fixture) segments() []string {
	f.Helper()
	files, err := filepath.Glob(filepath.Join(f.cfg.Dir, "*"+segmentSuffix))
	f.ok(err)
	return files
}

func TestPutLoad(t *testing.T) {
	f := newFixture(t)
	f.put("a", 1, 2, 3)
	f.put("b", 1)
	f.ok(f.l.Put(t.Context(), nil))
	f.want("k1-a-1", "k1-a-2", "k1-a-3", "k1-b-1")
	f.clock.Pass(time.Minute)
	f.want("k1-a-2", "k1-a-3")
	f.reopen()
	f.put("c", 5)
	f.want("k1-a-2", "k1-a-3", "k1-c-5")

	bad := storetest.Credential("", storetest.Epoch)
	if err := f.l.Put(t.Context(), []push.Record{bad}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("Put without a Tid: %v, want ErrInvalid", err)
	}
	stop := errors.New("stop")
	if err := f.l.Load(t.Context(), func(push.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Load = %v, want what its function returned", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.l.Load(ended, func(push.Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Load = %v, want context.Canceled", err)
	}
	for _, file := range append(f.segments(), f.cfg.Dir) {
		if fi, err := os.Stat(file); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v, want none for others", file, fi.Mode(), err)
		}
	}
}

// TestTornEnd cuts the last segment at many places, and spoils its end: what was whole stays.
func TestTornEnd(t *testing.T) {
	f := newFixture(t)
	f.put("a", 10)
	whole := f.l.active.size
	f.put("b", 10)
	f.ok(f.l.Close())
	content, err := os.ReadFile(f.segments()[0])
	f.ok(err)
	if zeros := bytes.Trim(content[f.l.active.size:], "\x00"); len(content) != 4000 || len(zeros) > 0 {
		t.Fatalf("the segment has %d bytes, and %q after what was written: want 4000 and zeros", len(content), zeros)
	}
	content = content[:f.l.active.size]
	ends := map[string][]byte{
		"a byte in the zeros": append(append(bytes.Clone(content[:whole]), make([]byte, 100)...), 1),
		"zeros":               append(bytes.Clone(content[:whole]), make([]byte, 5000)...),
		"a wrong byte":        append(bytes.Clone(content[:len(content)-1]), content[len(content)-1]^1),
		"a wild length":       append(bytes.Clone(content[:whole]), 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4, 5, 6),
	}
	for cut := 0; cut < len(content); cut += 9 {
		ends[fmt.Sprint("cut at ", cut)] = content[:cut]
	}
	for name, end := range ends {
		dir := t.TempDir()
		f.ok(os.WriteFile(filepath.Join(dir, "0000000000000001.log"), end, fileMode))
		l, err := Open(Config{Dir: dir, KEKs: f.cfg.KEKs, Now: f.clock.Now, SegmentSize: 4000})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		g := &fixture{T: t, l: l}
		if len(end) < int(whole) {
			g.want()
		} else {
			g.want("k1-a-10")
		}
		g.put("c", 10) // and it goes on
		f.ok(l.Close())
	}
}

// TestDamageInside: what was promised and cannot be read is said, and nothing is thrown away.
func TestDamageInside(t *testing.T) {
	f := newFixture(t)
	f.put("a", 10)
	f.reopen() // a second segment
	f.put("b", 10)
	f.ok(f.l.Close())
	file := f.segments()[0]
	content, err := os.ReadFile(file)
	f.ok(err)
	content[len(content)-1] ^= 1
	f.ok(os.WriteFile(file, content, fileMode))
	_, err = Open(f.cfg)
	if !errors.Is(err, store.ErrCorrupt) {
		t.Fatalf("Open = %v, want ErrCorrupt", err)
	}
	t.Log(err)
	f.ok(os.Remove(file))
	f.l = nil
	f.reopen()
	f.want("k1-b-10")
}

func TestOpenRefuses(t *testing.T) {
	f := newFixture(t)
	f.put("a", 10)
	if _, err := Open(f.cfg); !errors.Is(err, store.ErrLocked) {
		t.Errorf("a second Open = %v, want ErrLocked", err)
	}
	f.ok(f.l.Close())
	for _, kek := range []store.KEK{storetest.KEK("kek1", 2), storetest.KEK("kek2", 1)} {
		cfg := f.cfg
		cfg.KEKs = newKEKs(kek)
		_, err := Open(cfg)
		if !errors.Is(err, store.ErrKEK) {
			t.Errorf("Open = %v, want ErrKEK", err)
		}
		t.Log(err)
	}
	f.reopen()
	f.want("k1-a-10")
}

// settle waits until the sweeper has left want segments.
func (f *fixture) settle(want int) {
	f.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for len(f.segments()) != want {
		if time.Now().After(deadline) {
			f.Fatalf("segments are %v, want %d", f.segments(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestSegments: old ones go when all in them has expired, and shrink when half has.
func TestSegments(t *testing.T) {
	f := newFixture(t)
	f.cfg.SegmentSize, f.cfg.SegmentAge = 500, time.Hour
	f.reopen()
	f.settle(1) // the empty one of the first opening is gone
	f.put("a", 2, 2, 2, 90)
	f.put("b", 3, 3, 3, 3) // the first was full
	f.put("c", 95)
	f.settle(3)
	first := f.segments()[0]
	before, err := os.Stat(first)
	f.ok(err)

	f.clock.Pass(10 * time.Minute)
	f.reopen()
	f.settle(3) // a, shorter; c; and the new one
	deadline := time.Now().Add(10 * time.Second)
	for {
		after, err := os.Stat(first)
		f.ok(err)
		if after.Size() < before.Size() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s still has %d bytes", first, after.Size())
		}
		time.Sleep(time.Millisecond)
	}
	f.want("k1-a-90", "k1-c-95")
	f.reopen()
	f.want("k1-a-90", "k1-c-95")
	if left, _ := filepath.Glob(filepath.Join(f.cfg.Dir, "0*"+temporarySuffix)); len(left) > 0 {
		// The spare is not left over: it waits.
		t.Errorf("left over: %v", left)
	}
	f.clock.Pass(2 * time.Hour)
	f.put("d", 200)
	f.settle(1) // the active one
	f.want("k1-d-200")
}

// TestReseal: after a rotation of the KEK no row needs the old one.
func TestReseal(t *testing.T) {
	f := newFixture(t)
	f.put("a", 10, 20)
	f.ok(f.cfg.KEKs.Use(storetest.KEK("kek2", 2), storetest.KEK("kek1", 1)))
	f.put("b", 10)
	deadline := time.Now().Add(10 * time.Second)
	for !f.under("kek2") {
		if time.Now().After(deadline) {
			t.Fatal("rows are still under kek1")
		}
		time.Sleep(time.Millisecond)
	}
	f.cfg.KEKs = newKEKs(storetest.KEK("kek2", 2))
	f.reopen()
	f.want("k1-a-10", "k1-a-20", "k1-b-10")
}

func (f *fixture) under(kek turncred.KeyID) bool {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	return f.l.active.kek == kek && !slices.ContainsFunc(f.l.old, func(s *segment) bool { return s.kek != kek })
}

// TestKill9: what was promised before a SIGKILL is there after it.
func TestKill9(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	promised := storetest.KilledWriter(t, dir)
	f := &fixture{T: t, cfg: Config{Dir: dir, KEKs: newKEKs(storetest.KEK("kek1", 1))}}
	f.cfg.Now = f.clock.Now
	f.clock.Pass(-time.Hour) // Credentials of the child expire at Epoch
	f.reopen()
	defer func() { f.ok(f.l.Close()) }()
	found := map[turncred.Tid]bool{}
	f.ok(f.l.Load(t.Context(), func(r push.Record) error {
		storetest.WantPromised(t, r.Tid, r)
		found[r.Tid] = true
		return nil
	}))
	for _, tid := range promised {
		if !found[tid] {
			t.Fatalf("promised before the kill, gone after it: %s", tid)
		}
	}
	t.Logf("%d promises, all kept", len(promised))
}

// TestNoSecretInFile: no segment shows a key, sealed or after a compaction.
func TestNoSecretInFile(t *testing.T) {
	f := newFixture(t)
	r := storetest.Credential("k1-canary", storetest.Epoch.Add(time.Hour))
	f.ok(f.l.Put(t.Context(), []push.Record{r}))
	content, err := os.ReadFile(f.segments()[0])
	f.ok(err)
	if !bytes.Contains(content, []byte(r.Username)) || bytes.Contains(content, r.Key.MD5.Reveal()) || bytes.Contains(content, r.Key.SHA256.Reveal()) {
		t.Error("want the user name in the file, and neither key")
	}
}

// FuzzReadSegment: what a damaged file holds is an error and never a panic.
func FuzzReadSegment(f *testing.F) {
	keks := newKEKs(storetest.KEK("kek1", 1))
	proof, err := keks.SealCheck()
	if err != nil {
		f.Fatal(err)
	}
	box, err := keks.EncodeRecord(storetest.Credential("k1-a", storetest.Epoch))
	if err != nil {
		f.Fatal(err)
	}
	head := appendProof([]byte(magic), proof)
	f.Add(appendRecord(nil, "k1-a", box))
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 1})
	file := filepath.Join(f.TempDir(), "fuzz.log")
	f.Fuzz(func(t *testing.T, tail []byte) {
		if err := os.WriteFile(file, append(bytes.Clone(head), tail...), fileMode); err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		seg, err := read(in, 0, keks, func([]byte) error { return nil })
		// All was read, but for zeros, or there is an error.
		if size := int64(len(head) + len(bytes.TrimRight(tail, "\x00"))); seg.size > int64(len(head)+len(tail)) || err == nil && seg.size < size {
			t.Errorf("read %d of %d bytes, %v", seg.size, size, err)
		}
	})
}
