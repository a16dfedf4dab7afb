package relay

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	// firstFrame is the longest message before a stream has an allocation. The longest
	// request that makes sense, with USERNAME, REALM and NONCE at their limits, is shorter.
	firstFrame = 3072
	// longestFrame is the longest message after: data of 65,535 bytes in a Send
	// indication, rounded up.
	longestFrame = stunHeaderLen + 65536

	// A reader starts with room for a video packet, and grows as bytes arrive: a length
	// alone costs nothing.
	startFrameRoom = 2048
)

// errFraming says that a stream is not, or no longer, a sequence of messages. Nothing can
// be found again in it.
var errFraming = errors.New("relay: neither STUN nor ChannelData on a stream")

// frames cuts a stream into STUN and ChannelData messages (RFC 8489 §6.2.2, RFC 8656
// §12.5). It holds no more memory than twice the longest message so far.
type frames struct {
	r          io.Reader
	buf        []byte
	start, end int // of what has been read and not yet returned
}

func newFrames(r io.Reader) *frames { return &frames{r: r, buf: make([]byte, startFrameRoom)} }

// next returns the next message, less the padding of ChannelData. It is good until the
// following call, and its capacity is its length. A message longer than limit is
// errFraming.
func (f *frames) next(limit int) ([]byte, error) {
	if err := f.fill(channelHeaderLen); err != nil {
		return nil, err
	}
	size, total, err := frameSize(f.buf[f.start:f.end])
	if err != nil {
		return nil, err
	}
	if total > limit {
		return nil, errFraming
	}
	if err := f.fill(total); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	m := f.buf[f.start : f.start+size : f.start+size]
	f.start += total
	return m, nil
}

// frameSize returns the length of the message that h begins, without and with padding.
// Sums are of type int: a length of 0xFFEC must not wrap.
func frameSize(h []byte) (size, total int, err error) {
	n := int(binary.BigEndian.Uint16(h[2:]))
	switch {
	case h[0] < 4 && n%4 == 0: // RFC 8489 §5: STUN messages are padded already
		return stunHeaderLen + n, stunHeaderLen + n, nil
	case isChannel(h[0]):
		size = channelHeaderLen + n
		return size, (size + 3) &^ 3, nil
	}
	return 0, 0, errFraming
}

// fill reads until n bytes are there.
func (f *frames) fill(n int) error {
	for f.end-f.start < n {
		f.makeRoom(n)
		got, err := f.r.Read(f.buf[f.end:])
		f.end += got
		if got == 0 && err != nil {
			return err
		}
	}
	return nil
}

// makeRoom leaves free space at the end of buf, where less than n bytes wait in it. It
// doubles only what is full, so memory follows bytes that arrived.
func (f *frames) makeRoom(n int) {
	if f.start == f.end {
		f.start, f.end = 0, 0
	}
	if f.end < len(f.buf) && f.start+n <= len(f.buf) {
		return
	}
	waiting := f.buf[f.start:f.end]
	if len(waiting) == len(f.buf) {
		f.buf = make([]byte, 2*len(f.buf))
	}
	f.end = copy(f.buf, waiting)
	f.start = 0
}
