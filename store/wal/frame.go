package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// magic begins each segment.
const magic = "epcscf credential log 1\n"

// A frame's payload begins with its type.
const (
	frameProof  = 0 // the proof of the KEK that the segment's rows are under
	frameRecord = 1
)

const (
	frameHead = 8
	// maxFrame is more than a record with its longest fields takes.
	maxFrame = 16 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn says that a frame is not whole: a write that was never promised.
var errTorn = errors.New("frame is cut off or damaged")

// errZeros says that zeros stand where a frame would: what was allocated and not written.
var errZeros = errors.New("no frame")

// appendFrame appends a frame whose payload is typ and then parts.
func appendFrame(b []byte, typ byte, parts ...[]byte) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHead)...)
	b = append(b, typ)
	for _, p := range parts {
		b = append(b, p...)
	}
	payload := b[start+frameHead:]
	binary.BigEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[start+4:], crc32.Checksum(payload, castagnoli))
	return b
}

// readFrame reads one frame into buf, which it may grow, and returns its payload. The error
// is io.EOF at the end, errZeros or errTorn.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errTorn
		}
		return buf, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if head == [frameHead]byte{} {
		return buf, errZeros
	}
	if n == 0 || n > maxFrame {
		return buf, errTorn
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = errTorn
		}
		return buf, err
	}
	if crc32.Checksum(buf, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return buf, errTorn
	}
	return buf, nil
}

// onlyZeros reports whether nothing else is left in r.
func onlyZeros(r io.Reader) (bool, error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// appendRecord appends the frame of a sealed record: length (2), Tid, and what
// store.KEKs.EncodeRecord made.
func appendRecord(b []byte, tid turncred.Tid, sealed []byte) []byte {
	return appendFrame(b, frameRecord, binary.BigEndian.AppendUint16(nil, uint16(len(tid))), []byte(tid), sealed)
}

// splitRecord reads the payload of a record's frame and leaves the keys sealed.
func splitRecord(payload []byte) (push.Record, store.Sealed, error) {
	if len(payload) < 3 {
		return push.Record{}, store.Sealed{}, errTorn
	}
	n := int(binary.BigEndian.Uint16(payload[1:]))
	if len(payload) < 3+n {
		return push.Record{}, store.Sealed{}, errTorn
	}
	return store.SplitRecord(turncred.Tid(payload[3:3+n]), payload[3+n:])
}

// appendProof appends the frame of a KEK's proof: length (1), its id, the box.
func appendProof(b []byte, s store.Sealed) []byte {
	return appendFrame(b, frameProof, []byte{byte(len(s.KEK))}, []byte(s.KEK), s.Box)
}

func splitProof(payload []byte) (store.Sealed, error) {
	if len(payload) < 2 || payload[0] != frameProof || len(payload) < 2+int(payload[1]) {
		return store.Sealed{}, errTorn
	}
	n := 2 + int(payload[1])
	return store.Sealed{KEK: turncred.KeyID(payload[2:n]), Box: append([]byte(nil), payload[n:]...)}, nil
}
