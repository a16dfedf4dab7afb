package main

import (
	"os/exec"
	"strings"
	"testing"

	"epcscf/internal/realpart"
)

// The keys that are built into coturn's client, of which it takes one at random each time.
var coturnTokenKeys = map[string]string{
	"north.key":     "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK",
	"union.key":     "MTIzNDU2Nzg5MDEyMzQ1Ngo=",
	"oldempire.key": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK",
}

// The operator's file has the keys of another authorization server: its clients' tokens are
// taken, until SIGHUP takes the keys away.
func TestServeTokens(t *testing.T) {
	uclient := realpart.Program(t, "turnutils_uclient", "coturn")
	s := operateIn(t, t.TempDir(), coturnTokenKeys, func(y string) string {
		return y + `tokens:
  server_name: turn.ims.test
  keys:
    - {kid: north, file: north.key, foreign: true}
    - {kid: union, file: union.key, foreign: true, algorithm: A128GCM}
    - {kid: oldempire, file: oldempire.key, foreign: true}
    - {kid: t1, file: t1.key}
`
	})
	run := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), uclient, "-J", "-u", "any", "-w", "any", "-y", "-c", "-n", "5", "-m", "1", "-z", "5",
			"-p", s.relayPort(t, "udp"), "127.0.0.1").CombinedOutput()
		return string(out), err
	}
	if out, err := run(); err != nil || !strings.Contains(out, "tot_send_msgs=10, tot_recv_msgs=10") {
		t.Errorf("turnutils_uclient -J: %v\n%s\n%s", err, out, s.log)
	}
	for _, kid := range []string{"north", "union", "oldempire"} {
		s.edit(t, "kid: "+kid, "kid: x"+kid)
	}
	s.hangUp(t)
	s.eventually(t, "the change is taken", func() bool { return strings.Contains(s.log.String(), "[tokens.keys]") })
	if out, err := run(); err == nil || !strings.Contains(out, "Cannot complete Allocation") {
		t.Errorf("without its keys: %v\n%s", err, out)
	}
}
