package relay

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/pion/stun/v3"
)

func TestFrames(t *testing.T) {
	binding := build(stun.MethodBinding, stun.ClassRequest).Raw
	data := append([]byte{0x40, 0, 0, 5}, "hello\x00\x00\x00"...)
	long := append([]byte{0x4F, 0xFF, 0x20, 0}, bytes.Repeat([]byte{'l'}, 0x2000)...)
	in := bytes.Join([][]byte{binding, data, long, binding, data}, nil)
	want := [][]byte{binding, data[:9], long, binding, data[:9]}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(in), "bytes": iotest.OneByteReader(bytes.NewReader(in)), "halves": iotest.HalfReader(bytes.NewReader(in)),
	} {
		f := newFrames(r)
		for i, want := range want {
			got, err := f.next(longestFrame)
			if err != nil || !bytes.Equal(got, want) || cap(got) != len(got) {
				t.Fatalf("%s: message %d: %x (%v), want %x", name, i, got, err, want)
			}
		}
		if _, err := f.next(longestFrame); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
}

func TestFramesRefuse(t *testing.T) {
	for name, tt := range map[string]struct {
		in   []byte
		want error
	}{
		"reserved":   {[]byte{0x04, 0, 0, 0}, errFraming},
		"RTP":        {[]byte{0x80, 0, 0, 0}, errFraming},
		"TLS":        {[]byte{0x16, 3, 1, 0}, errFraming},
		"HTTP":       {[]byte("GET / HTTP/1.1"), nil}, // 'G' is 0x47: a channel. Its length is beyond the limit
		"odd length": {[]byte{0, 1, 0, 3}, errFraming},
		"too long":   {[]byte{0, 1, 0xFF, 0xEC}, errFraming},
		"cut header": {[]byte{0, 1}, io.EOF},
		"cut":        {[]byte{0x40, 0, 0, 9, 1}, io.ErrUnexpectedEOF},
		"empty":      {nil, io.EOF},
	} {
		_, err := newFrames(bytes.NewReader(tt.in)).next(firstFrame)
		if tt.want == nil {
			tt.want = errFraming
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// FuzzFrames: whatever arrives, in whatever pieces, messages are whole and memory bounded.
func FuzzFrames(f *testing.F) {
	f.Add(build(stun.MethodBinding, stun.ClassRequest).Raw, true)
	f.Add([]byte{0x40, 0, 0, 5, 'h', 'e', 'l', 'l', 'o', 0, 0, 0, 0, 1, 0xFF, 0xEC}, false)
	f.Fuzz(func(t *testing.T, in []byte, single bool) {
		var r io.Reader = bytes.NewReader(in)
		if single {
			r = iotest.OneByteReader(r)
		}
		frames, total := newFrames(r), 0
		for {
			m, err := frames.next(firstFrame)
			if err != nil {
				break
			}
			total += len(m)
			if len(m) < channelHeaderLen || len(m) > firstFrame || !bytes.Contains(in, m) {
				t.Fatalf("message %x of %x", m, in)
			}
		}
		if total > len(in) || len(frames.buf) > 2*firstFrame {
			t.Fatalf("%d bytes out of %d, %d held", total, len(in), len(frames.buf))
		}
	})
}
