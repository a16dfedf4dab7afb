package proxy

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gorilla/websocket"

	"epcscf/internal/realpart"
)

// watchable has Kamailio notify of registrations, by the documentation's reg-event.cfg.
func (k *kamailio) watchable() {
	k.t.Helper()
	const tables = "/usr/share/kamailio/dbtext/kamailio"
	if module, _ := filepath.Glob("/usr/lib/*/kamailio/modules/pua_reginfo.so"); module == nil {
		realpart.Missing(k.t, "pua_reginfo.so (Debian: kamailio-presence-modules)")
	}
	for _, name := range []string{"presentity", "active_watchers", "watchers", "pua", "xcap", "version"} {
		table, err := os.ReadFile(filepath.Join(tables, name))
		if err != nil {
			k.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(k.dir, name), table, 0o600); err != nil {
			k.t.Fatal(err)
		}
	}
	k.args = append(k.args, "-A", `REG_EVENT_DB="text://`+k.dir+`"`, "-A", `SELF_URI="sip:`+k.addr.String()+`"`)
}

// rpc has an operator's word with it.
func (k *kamailio) rpc(args ...string) {
	k.t.Helper()
	kamcmd := realpart.Program(k.t, "kamcmd", "kamailio")
	out, err := exec.Command(kamcmd, append([]string{"-s", "unix:" + filepath.Join(k.dir, "kamailio_ctl")}, args...)...).CombinedOutput()
	if err != nil {
		k.t.Fatalf("kamcmd %q: %v\n%s", args, err, out)
	}
}

// TestKamailioRegEvent: a notifier that is not ours (RFC 3680). The edge subscribes, follows
// the documents, and ends the registration with its credential when an operator of the core
// removes the binding. Two devices of a user: the one that is not removed stays.
func TestKamailioRegEvent(t *testing.T) {
	k := newKamailio(t)
	k.watchable()
	k.start()
	relay := &relayStub{}
	r := newRig(t, k.addr, func(c *Config) { c.RegEvent, c.Provisioner = true, sharedKey(t, relay) })
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustRegister(askHeader)
	bob.mustRegister(askHeader)
	eventually(t, "both are watched", func() bool { return r.metric("epcscf_regevent_notifies_total", "result=applied") >= 2 })

	k.rpc("ul.rm", "location", "alice")
	var closed *websocket.CloseError
	if end := alice.ended(); !errors.As(end.err, &closed) {
		t.Errorf("alice's socket ended with %v, want a close", end.err)
	}
	if got := relay.all(); len(got) != 1 {
		t.Errorf("%d revocations, want alice's alone: %+v", len(got), got)
	}
	bob.mustRegister(askHeader)
}
