package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"epcscf/proxy"
	"epcscf/proxy/minicore"
	"epcscf/wic"
)

// DemoNode is a node with its page and, unless another core serves, a miniature one.
type DemoNode struct {
	*Node
	info Info
	core *minicore.Core // nil where another core serves
	udp  net.PacketConn // the miniature core's
	tcp  net.Listener
}

// ListenDemo checks d, prepares the data directory, opens every socket and wires the
// parts. Nothing is served before Run. An error names the flag or the file, and leaves
// nothing open.
func ListenDemo(d Demo) (_ *DemoNode, err error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if d.DataDir, err = filepath.Abs(d.DataDir); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if err := os.MkdirAll(d.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	sec, err := loadSecrets(d.DataDir)
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	hosts := []netip.Addr{d.Listen.Addr(), d.TURNSListen.Addr()}
	if d.WAFListen.IsValid() {
		hosts = append(hosts, d.WAFListen.Addr())
	}
	pki, err := loadPKI(d.DataDir, hosts, time.Now())
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	n := &DemoNode{}
	if err := n.listen(d, sec, pki); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// listen opens the sockets first: the page and its origins name ports that the kernel
// may have chosen.
func (n *DemoNode) listen(d Demo, sec secrets, pki *localPKI) error {
	next, err := n.nextHop(d, sec)
	if err != nil {
		return err
	}
	cfg := d.node(sec, pki)
	cfg.Proxy.NextHops = []proxy.NextHop{next}
	cfg.Proxy.Core.FollowServiceRoute = true
	if err := d.addWAF(&cfg); err != nil {
		return err
	}
	s, err := openSockets(cfg)
	if err != nil {
		return err
	}
	n.info = d.info(s.addresses(), pki, sec, next)
	cfg.Proxy.Origins = n.info.origins()
	if cfg.Page, err = wic.NewHandler(wic.PageConfig{
		Domain: d.Domain, WebSocketPath: webSocketPath, Users: demoUsers, TURNApproach: string(d.Approach),
		CAPEM: pki.CAPEM, Demo: n.core != nil, TrustHint: n.info.ChromiumCommand(),
		OAuth: d.oauth(&cfg, s.addresses()),
	}); err == nil && cfg.WAF != nil {
		cfg.Page, err = withTokenFields(cfg.Page, cfg.TURN.Tokens, cfg.TURN.Realm)
	}
	if err != nil {
		s.close()
		return fmt.Errorf("page: %w", err)
	}
	if n.Node, err = newNode(cfg, s); err != nil {
		return err
	}
	n.info.TURNURIs = n.TURNURIs()
	if n.waf == nil {
		return nil
	}
	return n.fillWAF(context.Background(), d, sec)
}

// nextHop returns where requests go: the given core, or a miniature one that is reached
// by its socket like any other.
func (n *DemoNode) nextHop(d Demo, sec secrets) (next proxy.NextHop, err error) {
	if d.Core != nil {
		return *d.Core, nil
	}
	if n.core, err = minicore.New(minicore.Config{Domain: d.Domain, Users: sec.users, TrustedEdges: d.trusted(), Logger: d.Logger}); err != nil {
		return next, fmt.Errorf("miniature core: %w", err)
	}
	at := Address{AddrPort: netip.AddrPortFrom(d.CoreListen.Addr(), 0), From: "miniature core"}
	if n.udp, n.tcp, err = listenBoth(at); err != nil {
		return next, err
	}
	return proxy.ParseNextHop("udp:" + addrPort(n.udp.LocalAddr()).String())
}

// Info says where the demo listens and who may sign in.
func (n *DemoNode) Info() Info { return n.info }

// Run is Node.Run with the miniature core beside it.
func (n *DemoNode) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if n.core != nil {
		g.Go(func() error { return n.core.Serve(ctx, n.udp, n.tcp) })
	}
	g.Go(func() error { return n.Node.Run(ctx) })
	return g.Wait()
}

// Close frees the sockets of a demo that does not run.
func (n *DemoNode) Close() error {
	if n.udp != nil {
		_, _ = n.udp.Close(), n.tcp.Close()
	}
	if n.Node == nil {
		return nil
	}
	return n.Node.Close()
}
