package wal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

// segment is one file of the log.
type segment struct {
	file    string
	kek     turncred.KeyID // of its rows
	size    int64          // what is promised of it
	records int
	last    time.Time     // when its last record expires
	minutes map[int64]int // records by the minute of their expiry
}

func (s *segment) add(texp time.Time) {
	s.records++
	s.minutes[texp.Unix()/60]++
	if texp.After(s.last) {
		s.last = texp
	}
}

// dead returns how many of its records have expired, to the minute.
func (s *segment) dead(now time.Time) (n int) {
	for minute, count := range s.minutes {
		if minute < now.Unix()/60 {
			n += count
		}
	}
	return n
}

// create makes the file of a segment, which exists before anything in it is promised. Up to
// size it is written with zeros: what overwrites them changes no metadata, so its sync waits
// for no journal of the file system, and so not for what others write.
func create(file string, keks *store.KEKs, size int64) (*segment, *os.File, error) {
	proof, err := keks.SealCheck()
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, nil, err
	}
	head := appendProof([]byte(magic), proof)
	_, err = f.Write(head)
	zeros := make([]byte, min(max(size-int64(len(head)), 0), 1<<20))
	for at := int64(len(head)); err == nil && at < size; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close(), os.Remove(file))
	}
	return &segment{file: file, kek: proof.KEK, size: int64(len(head)), minutes: map[int64]int{}}, f, nil
}

// read reads a segment up to size, or with size 0 as far as it is whole, calls f with the
// payload of each record, and closes it. It returns what it read; the error is errTorn where
// that is not the whole.
func read(in *os.File, size int64, keks *store.KEKs, f func(payload []byte) error) (seg *segment, err error) {
	defer func() { err = errors.Join(err, in.Close()) }()
	var r io.Reader = bufio.NewReaderSize(in, 1<<18)
	if size > 0 {
		r = io.LimitReader(r, size)
	}
	seg = &segment{file: in.Name(), minutes: map[int64]int{}}
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil || string(head) != magic {
		return seg, errTorn
	}
	payload, err := readFrame(r, nil)
	if err != nil {
		return seg, errTorn
	}
	proof, err := splitProof(payload)
	if err != nil {
		return seg, err
	}
	if err := keks.OpenCheck(proof); err != nil {
		return seg, err
	}
	seg.kek, seg.size = proof.KEK, int64(len(magic)+frameHead+len(payload))
	for {
		payload, err = readFrame(r, payload)
		switch {
		case errors.Is(err, io.EOF):
			return seg, nil
		case errors.Is(err, errZeros):
			if rest, err := onlyZeros(r); err != nil || rest {
				return seg, err
			}
			return seg, errTorn
		case err != nil:
			return seg, err
		}
		if err := f(payload); err != nil {
			return seg, err
		}
		seg.size += int64(frameHead + len(payload))
		rec, _, err := splitRecord(payload)
		if err != nil {
			return seg, err
		}
		seg.add(rec.Texp)
	}
}

// compact rewrites a segment that is no longer written without what has expired. Who reads
// it meanwhile reads the old file.
func compact(seg *segment, keks *store.KEKs, now time.Time) (*segment, error) {
	in, err := os.Open(seg.file)
	if err != nil {
		return nil, err
	}
	temporary := seg.file + temporarySuffix
	fresh, f, err := create(temporary, keks, 0)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	out := bufio.NewWriterSize(f, 1<<18)
	var frame []byte
	_, err = read(in, 0, keks, func(payload []byte) error {
		r, _, err := splitRecord(payload)
		if err != nil || !now.Before(r.Texp) {
			return err
		}
		if seg.kek != fresh.kek { // sealed anew, so that an older KEK can go
			var box []byte
			if r, err = openRecord(keks, payload); err == nil {
				box, err = keks.EncodeRecord(r)
			}
			if err != nil {
				return err
			}
			frame = appendRecord(frame[:0], r.Tid, box)
		} else {
			frame = appendFrame(frame[:0], payload[0], payload[1:])
		}
		fresh.add(r.Texp)
		fresh.size += int64(len(frame))
		_, err = out.Write(frame)
		return err
	})
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(temporary, seg.file)
	}
	if err == nil {
		err = syncDir(filepath.Dir(seg.file))
	}
	if err != nil {
		return nil, fmt.Errorf("compact %s: %w", seg.file, errors.Join(err, os.RemoveAll(temporary)))
	}
	fresh.file = seg.file
	return fresh, nil
}

// syncDir makes names durable: a new file, a rename, a removal.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
