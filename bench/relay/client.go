package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v3"
	"golang.org/x/sys/unix"
)

// flow is an allocation with its client and, where it is to carry something, its peer. Both
// sockets are connected, blocking, and outside Go's poller.
type flow struct {
	client, peer int // descriptors; peer is -1 where there is none
	relayed      netip.AddrPort
}

const (
	channel   = 0x4000
	tries     = 20
	patience  = 250 * time.Millisecond // for an answer, before the request goes out again
	bufferLen = 2 << 20                // of the flows' sockets, which are not what is measured
)

var transportUDP = stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}}

// dial returns a blocking UDP socket on loopback that is connected to addr, where valid.
func dial(addr netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	wait := unix.NsecToTimeval(int64(patience))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferLen),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	if err == nil && addr.IsValid() {
		err = connect(fd, addr)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func connect(fd int, addr netip.AddrPort) error {
	return unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
}

// ping asks for a Binding.
func ping(addr netip.AddrPort) error {
	fd, err := dial(addr)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return err
	}
	_, err = exchange(fd, m, 1)
	return err
}

// exchange sends a request, again where no answer comes, and returns the answer.
func exchange(fd int, m *stun.Message, tries int) (*stun.Message, error) {
	buf := make([]byte, 2048)
	for range tries {
		if _, err := unix.Write(fd, m.Raw); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return nil, err
		}
		for {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.ECONNREFUSED) {
				time.Sleep(patience / 10) // at once: it may be starting still
			}
			if err != nil {
				break // most likely nothing came in time
			}
			res := &stun.Message{Raw: buf[:n]}
			if res.Decode() == nil && res.TransactionID == m.TransactionID {
				return res, nil
			}
		}
	}
	return nil, errors.New("no answer")
}

// user makes requests.
type user struct {
	name  stun.Username
	realm stun.Realm
	key   stun.MessageIntegrity
}

func newUser(c contender) (*user, error) {
	name, password, err := c.credential()
	return &user{stun.NewUsername(name), stun.NewRealm(realm), stun.NewLongTermIntegrity(name, realm, password)}, err
}

func (u *user) do(fd int, nonce stun.Nonce, method stun.Method, attrs ...stun.Setter) (*stun.Message, error) {
	all := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)
	if len(nonce) > 0 {
		all = append(all, u.name, u.realm, nonce, u.key)
	}
	m, err := stun.Build(all...)
	if err != nil {
		return nil, err
	}
	return exchange(fd, m, tries)
}

// open makes an allocation, and binds its channel to a peer where one is wanted.
func (u *user) open(server netip.AddrPort, withPeer bool) (_ *flow, err error) {
	f := &flow{peer: -1}
	if f.client, err = dial(server); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	res, err := u.do(f.client, nil, stun.MethodAllocate, transportUDP)
	if err != nil {
		return nil, fmt.Errorf("allocate: %w", err)
	}
	var nonce stun.Nonce
	if err := nonce.GetFrom(res); err != nil {
		return nil, fmt.Errorf("challenge: %w", err)
	}
	if res, err = u.do(f.client, nonce, stun.MethodAllocate, transportUDP); err != nil {
		return nil, fmt.Errorf("allocate: %w", err)
	}
	var relayed stun.XORMappedAddress
	if err := relayed.GetFromAs(res, stun.AttrXORRelayedAddress); err != nil {
		return nil, fmt.Errorf("allocate: %s: %w", res, err)
	}
	ip, _ := netip.AddrFromSlice(relayed.IP)
	f.relayed = netip.AddrPortFrom(ip.Unmap(), uint16(relayed.Port))
	if !withPeer {
		return f, nil
	}
	if f.peer, err = dial(f.relayed); err != nil {
		return nil, err
	}
	return f, f.bind(u, nonce)
}

// bind binds the channel to the peer.
func (f *flow) bind(u *user, nonce stun.Nonce) error {
	sa, err := unix.Getsockname(f.peer)
	if err != nil {
		return err
	}
	at := sa.(*unix.SockaddrInet4)
	peer := stun.XORMappedAddress{IP: at.Addr[:], Port: at.Port}
	number := stun.RawAttribute{Type: stun.AttrChannelNumber, Value: binary.BigEndian.AppendUint32(nil, channel<<16)}
	set := setterFunc(func(m *stun.Message) error { return peer.AddToAs(m, stun.AttrXORPeerAddress) })
	res, err := u.do(f.client, nonce, stun.MethodChannelBind, number, set)
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if res.Type.Class != stun.ClassSuccessResponse {
		return fmt.Errorf("bind: %s", res)
	}
	return nil
}

type setterFunc func(*stun.Message) error

// AddTo implements stun.Setter.
func (f setterFunc) AddTo(m *stun.Message) error { return f(m) }

func (f *flow) close() {
	_ = unix.Close(f.client)
	if f.peer >= 0 {
		_ = unix.Close(f.peer)
	}
}

// openFlows opens n allocations at c, started as s.
func (b *bench) openFlows(c contender, s *server, n int, withPeers bool) (all []*flow, err error) {
	u, err := newUser(c)
	if err != nil {
		return nil, err
	}
	var (
		mu   sync.Mutex // guards all and err
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range b.parallel {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				f, e := u.open(s.addr, withPeers)
				mu.Lock()
				if e != nil {
					err = errors.Join(err, e)
					next.Store(int64(n))
				} else {
					all = append(all, f)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err != nil {
		closeFlows(all)
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return all, nil
}

func closeFlows(all []*flow) {
	for _, f := range all {
		f.close()
	}
}
