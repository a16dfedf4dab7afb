package proxy

import (
	"net/netip"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// serviceHops are the places that Service-Routes name, by the URI on top: an S-CSCF may be
// another host than the next hop, which REGISTERs go to (RFC 3608 §6.1, RFC 3261 §16.6).
// Only a Service-Route names one, since it is the core's word on a 200. A dialog's route set
// comes from its far end, which could name any host; it leads to a place that is here
// already, or to the next hop.
type serviceHops struct {
	p *Proxy

	mu   sync.Mutex
	sets map[NextHop]*hopSet
}

// maxServiceHops bounds the places; beyond it requests go to the next hop.
const maxServiceHops = 256

// hopOf reads where a Route element leads (RFC 3263 §4).
func hopOf(route string) (NextHop, bool) {
	u, ok := parseURI(route)
	if !ok || u.Scheme != "sip" && u.Scheme != "sips" {
		return NextHop{}, false
	}
	n := NextHop{Transport: u.Scheme, Addr: strings.ToLower(u.Host)}
	if ip, err := netip.ParseAddr(u.Host); err == nil && ip.Is6() {
		n.Addr = "[" + u.Host + "]"
	}
	if u.Port != 0 {
		n.Addr = hostWithPort(strings.Trim(n.Addr, "[]"), uint16(u.Port))
	}
	if transport, _ := u.UriParams.Get("transport"); transport != "" {
		n.Transport = strings.ToLower(transport)
	}
	return n, true
}

// at returns the hops of a route, nil where the next hop shall have the request. A place that
// a Service-Route names is kept, one that anything else names must be there.
func (s *serviceHops) at(route string, fromServiceRoute bool) *hopSet {
	n, ok := hopOf(route)
	if !ok || s.p.cfg.Core.checkHop(n) != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.sets[n]; set != nil || !fromServiceRoute {
		return set
	}
	if s.p.core.hops.is(n) {
		return nil // its health is watched already
	}
	if len(s.sets) >= maxServiceHops {
		return nil
	}
	set := newHopSet(s.p, []NextHop{n}, false)
	s.sets[n] = set
	s.p.log.Info("a Service-Route leads to another host than the next hop", "host", n.String())
	return set
}

// is reports whether a set stands for one address alone, and n for the same.
func (s *hopSet) is(n NextHop) bool {
	u, err := n.uri()
	if err != nil || !u.ip.IsValid() {
		return false
	}
	found, err := s.resolver.resolve(s.p.ctx, u) // numeric: asks nobody
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && len(found) == 1 && len(s.hops) == 1 && s.hops[found[0].hopAddr] != nil
}

// hopsFor is where a WIC's request goes: to its stored Service-Route or to the core's next
// hop, or to the emergency route. A WIC that writes its own Route or Request-URI must not make
// us send to an address of its choice. The one exception is a route that leads back to
// ourselves, see beyondUs.
func (p *Proxy) hopsFor(req *sip.Request, emergency bool) *hopSet {
	if emergency {
		return p.core.emergency
	}
	routes := elements(req, "Route")
	if len(routes) == 0 {
		return p.core.hops
	}
	if own, ok := p.ownRoute(routes[0]); ok && !own.ws {
		return p.core.self
	}
	if p.cfg.Core.FollowServiceRoute {
		if set := p.core.service.at(routes[0], toTag(req) == ""); set != nil {
			return set
		}
	}
	return p.core.hops
}
