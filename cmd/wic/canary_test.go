package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"epcscf/cmd/internal/node"
	"epcscf/internal/realpart"
	"epcscf/proxy"
	"epcscf/proxy/minicore"
	"epcscf/sipext"
	"epcscf/turncred"
)

// tap records every datagram of a socket, both ways.
type tap struct {
	net.PacketConn
	wire *realpart.Output
}

func (t tap) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := t.PacketConn.ReadFrom(p)
	_, _ = t.wire.Write(p[:n])
	return n, from, err
}

func (t tap) WriteTo(p []byte, to net.Addr) (int, error) {
	_, _ = t.wire.Write(p)
	return t.PacketConn.WriteTo(p, to)
}

// startTappedCore runs the miniature core on a socket that is recorded.
func startTappedCore(t *testing.T, users map[string]turncred.Secret, log *slog.Logger) (*realpart.Output, proxy.NextHop) {
	t.Helper()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, err := minicore.New(minicore.Config{Domain: "ims.test", Users: users, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	wire := &realpart.Output{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- core.Serve(ctx, tap{udp, wire}, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("core: %v", err)
		}
	})
	next, err := proxy.ParseNextHop("udp:" + udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return wire, next
}

// Secrets appear in no log at debug level, not in /metrics and not on the wire to the core.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	const password, km, deployment = "CANARYpassword", "CANARYkmCANARYkmCANARYkmCANARYkm", "CANARYdeploymentCANARYdeploymentCANARY"
	for _, a := range approaches {
		t.Run(string(a), func(t *testing.T) {
			logs := &realpart.Output{}
			old := slog.Default() // what libraries log to
			slog.SetDefault(debugLog(logs))
			defer slog.SetDefault(old)

			users := map[string]turncred.Secret{"alice": secretOf(password), "bob": secretOf(password)}
			wire, next := startTappedCore(t, users, debugLog(logs))
			dir := t.TempDir()
			secrets := fmt.Sprintf(`{"km":%q,"deployment_secret":%q,"users":{"alice":%q,"bob":%q,"carol":%q}}`, km, deployment, password, password, password)
			if err := os.WriteFile(filepath.Join(dir, "secrets.json"), []byte(secrets), 0o600); err != nil {
				t.Fatal(err)
			}
			d := startDemo(t, func(c *node.Demo) {
				c.Approach, c.Core, c.DataDir, c.Logger = a, &next, dir, debugLog(logs)
			})
			for _, user := range []string{"alice", "bob"} {
				d.write(t, user+".pw", password)
			}
			creds := useEverything(t, d)
			metrics := d.metrics(t)

			if !strings.Contains(wire.String(), "REGISTER sip:ims.test") || !strings.Contains(logs.String(), "level=DEBUG") {
				t.Fatal("nothing was recorded: the test would see no leak")
			}
			places := map[string]string{"the log": logs.String(), "/metrics": metrics, "the wire to the core": wire.String()}
			for place, text := range places {
				forbid(t, place, text, "a password, key or secret", "CANARY")
				for _, c := range creds {
					forbid(t, place, text, "a TURN password", c.Tpwd)
					key := turncred.NewLongTermKey(c.Username, turncred.Realm(c.Realm), secretOf(c.Tpwd))
					forbid(t, place, text, "a long-term key", hex.EncodeToString(key.MD5.Reveal()))
				}
			}
			forbid(t, "the wire to the core", strings.ToLower(wire.String()), "the header or the tag", sipext.TurnCredHeader)
			for _, c := range creds {
				forbid(t, "the wire to the core", wire.String(), "a Tid", c.Tid)
			}
			responses := regexp.MustCompile(`response="([0-9a-f]{32,64})"`).FindAllStringSubmatch(wire.String(), -1)
			if len(responses) == 0 {
				t.Fatal("no digest response on the wire")
			}
			for _, r := range responses {
				forbid(t, "the log", logs.String(), "a digest response", r[1])
			}
		})
	}
}

// forbid fails where text holds what it must not; it does not print the secret.
func forbid(t *testing.T, place, text, what, secret string) {
	t.Helper()
	if i := strings.Index(text, secret); i >= 0 {
		line := text[strings.LastIndexByte(text[:i], '\n')+1 : i]
		t.Errorf("%s holds %s, after %q", place, what, line)
	}
}

// useEverything registers, renews, relays, fails and de-registers, and returns the
// credentials that came.
func useEverything(t *testing.T, d demo) []sipext.TurnCred {
	t.Helper()
	alice, bob := d.register(t, "alice"), d.register(t, "bob")
	creds := []sipext.TurnCred{alice.cred, bob.cred}
	renewed, err := alice.Options(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	creds = append(creds, renewed)
	exchange(t, allocate(t, d.turnUDP(t), alice.cred), allocate(t, d.turnUDP(t), bob.cred))

	wrong := renewed
	wrong.Tpwd = "CANARYwrong"
	if _, err := turnClient(t, d.turnUDP(t), wrong).Allocate(); err == nil {
		t.Error("a wrong password makes an allocation")
	}
	fail(t, exitFailed, []string{"401"}, d.args("register", "alice", "--password-file", filepath.Join(d.dir, "wrong.pw"))...)
	if err := alice.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	return creds
}
