package main

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what coturn and pion/turn check
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"epcscf/bench/internal/subject"
)

const (
	// realm is that of every server.
	realm = "ims.test"
	// restSecret is what coturn and pion/turn share with this program.
	restSecret = "north"
)

// contender is a TURN server that can be started.
type contender struct {
	name  string
	ours  bool
	start func() (*server, error)
	// credential is good for an hour.
	credential func() (username, password string, err error)
}

// server is a started contender.
type server struct {
	addr    netip.AddrPort
	pid     int
	control *subject.Control // nil: not ours
	stop    func()
}

// bench is what all measurements share.
type bench struct {
	settings
	progress io.Writer
	servers  []contender
}

func newBench(s settings, progress io.Writer) (*bench, error) {
	b := &bench{settings: s, progress: progress}
	if s.profile != "" {
		if err := os.MkdirAll(s.profile, 0o700); err != nil {
			return nil, fmt.Errorf("-profile: %w", err)
		}
	}
	all := []contender{ours()}
	if c, err := coturn(); err != nil {
		b.say("coturn is left out: %v", err)
	} else {
		all = append(all, c)
	}
	all = append(all, pion())
	for _, c := range all {
		if len(s.only) == 0 || slices.ContainsFunc(s.only, func(part string) bool { return strings.Contains(c.name, part) }) {
			b.servers = append(b.servers, c)
		}
	}
	if len(b.servers) == 0 {
		return nil, errors.New("-only leaves no server")
	}
	return b, nil
}

func (b *bench) close() {}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.progress, format+"\n", args...)
}

// restCredential is of draft-uberti-behave-turn-rest-00.
func restCredential() (username, password string, err error) {
	username = strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10) + ":bench"
	m := hmac.New(sha1.New, []byte(restSecret))
	m.Write([]byte(username))
	return username, base64.StdEncoding.EncodeToString(m.Sum(nil)), nil
}

// fromSubject makes a server of a process of ours.
func fromSubject(p *subject.Process, err error) (*server, error) {
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddrPort(p.Addr)
	if err != nil {
		p.Stop()
		return nil, err
	}
	return &server{addr: addr, pid: p.PID, control: p.Control, stop: p.Stop}, nil
}
