package config

import (
	"net/netip"
	"net/url"
	"strings"
	"time"

	"epcscf/cmd/internal/node"
	"epcscf/proxy"
	"epcscf/sipext"
)

// setter puts a value where it belongs, or returns the Fault of it.
type setter func(f *File, v value) error

func text(what string, to func(*File) *string) setter {
	return func(f *File, v value) (err error) {
		*to(f), err = v.text(what)
		return err
	}
}

func boolean(to func(*File) *bool) setter {
	return func(f *File, v value) (err error) {
		*to(f), err = v.boolean()
		return err
	}
}

func integer[T ~int | ~int64 | ~uint16](least, most int64, to func(*File) *T) setter {
	return func(f *File, v value) error {
		i, err := v.integer(least, most)
		*to(f) = T(i)
		return err
	}
}

// unlimited is integer with 0 for no limit, which the edge writes as a negative number.
func unlimited(most int64, to func(*File) *int) setter {
	return func(f *File, v value) error {
		if err := integer(0, most, to)(f, v); err != nil {
			return err
		}
		if *to(f) == 0 {
			*to(f) = -1
		}
		return nil
	}
}

// duration reads 90s, 10m or 24h from least to most.
func duration(least, most time.Duration, to func(*File) *time.Duration) setter {
	return func(f *File, v value) error {
		s, err := v.text("a time with its unit")
		if err != nil {
			return v.want("a time with its unit")
		}
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return v.want("a time with its unit")
		case d < least || d > most:
			return v.faultf("%s is out of range: want %v to %v", s, least, most)
		}
		*to(f) = d
		return nil
	}
}

// choice reads one of a few words.
func choice[T ~string](to func(*File) *T, words ...T) setter {
	return func(f *File, v value) error {
		s, err := v.text("a word")
		for _, w := range words {
			if err == nil && s == string(w) {
				*to(f) = w
				return nil
			}
		}
		var all []string
		for _, w := range words {
			all = append(all, string(w))
		}
		return v.faultf("want %s, got %s", strings.Join(all, " or "), v.describe())
	}
}

// domain reads a host name; "" leaves it out where the key is no must.
func domain(to func(*File) *string) setter {
	return func(f *File, v value) error {
		s, err := v.text("a domain name")
		if err != nil {
			return err
		}
		if s != "" && node.CheckDomain(s) != nil {
			return v.want("a domain name")
		}
		*to(f) = s
		return nil
	}
}

func parseAddress(v value) (node.Address, error) {
	const what = "IP:PORT"
	s, err := v.text(what)
	if err != nil {
		return node.Address{}, err
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil && strings.Count(s, ":") == 1 && !strings.HasPrefix(s, ":") && !strings.ContainsAny(s[:1], "0123456789"):
		return node.Address{}, v.faultf("%q: a socket is opened at an address, not a name: want IP:PORT%s", s, v.such())
	case err != nil:
		return node.Address{}, v.want(what)
	case a.Port() == 0:
		return node.Address{}, v.faultf("%s: port 0 would be another at each start: want 1 to 65535", s)
	case a.Addr().IsMulticast():
		return node.Address{}, v.faultf("%s is a multicast address: give one of this host%s", s, v.such())
	}
	line, _ := position(v.node)
	return node.Address{AddrPort: a, From: from(v.file, line, v.key)}, nil
}

func address(to func(*File) *node.Address) setter {
	return func(f *File, v value) (err error) {
		*to(f), err = parseAddress(v)
		return err
	}
}

// maybeAddress is address, or "" for none.
func maybeAddress(to func(*File) *node.Address) setter {
	return func(f *File, v value) error {
		if s, err := v.text("IP:PORT"); err == nil && s == "" {
			*to(f) = node.Address{}
			return nil
		}
		return address(to)(f, v)
	}
}

func adminAddress(to func(*File) *node.Address) setter {
	return func(f *File, v value) error {
		a, err := parseAddress(v)
		if err != nil {
			return err
		}
		if err := node.CheckAdmin(a.AddrPort); err != nil {
			return v.faultf("%s: %v", a, err)
		}
		*to(f) = a
		return nil
	}
}

// each reads a list, one value by itself included.
func each[T any](parse func(value) (T, error), to func(*File) *[]T) setter {
	return func(f *File, v value) error {
		items := v.list()
		all := make([]T, 0, len(items))
		for _, item := range items {
			t, err := parse(item)
			if err != nil {
				return err
			}
			all = append(all, t)
		}
		*to(f) = all
		return nil
	}
}

// parsePrefix reads 10.0.0.0/8, or an address for itself alone.
func parsePrefix(v value) (netip.Prefix, error) {
	const what = "an address range"
	s, err := v.text(what)
	if err != nil {
		return netip.Prefix{}, err
	}
	p, err := netip.ParsePrefix(s)
	if a, e := netip.ParseAddr(s); e == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		return p, v.want(what)
	case p.Bits() == 0:
		return p, v.faultf("%s is everybody: name the ranges that are meant%s", s, v.such())
	case p != p.Masked():
		return p, v.faultf("%s has bits beyond its prefix: write %s", s, p.Masked())
	}
	return p, nil
}

// parsePeer reads IP or IP:PORT.
func parsePeer(v value) (netip.AddrPort, error) {
	s, err := v.text("IP or IP:PORT")
	if err != nil {
		return netip.AddrPort{}, err
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, v.want("IP or IP:PORT")
	}
	return a, nil
}

func ipAddress(to func(*File) *netip.Addr) setter {
	return func(f *File, v value) error {
		s, err := v.text("an IP address")
		if err != nil || s == "" {
			return err
		}
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil || a.Zone() != "":
			return v.want("an IP address")
		case a.IsUnspecified() || a.IsMulticast():
			return v.faultf("%s cannot be given out as an address: write the one that is meant%s", s, v.such())
		}
		*to(f) = a
		return nil
	}
}

// parseOrigin reads an origin exactly as browsers send it (RFC 6454 §6.2).
func parseOrigin(v value) (string, error) {
	const what = "https://HOST or https://HOST:PORT"
	s, err := v.text(what)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "*"):
		return "", v.faultf("%q would let every page of the web speak SIP with its visitors' registrations: list each origin, such as https://phone.ims.example", s)
	case err != nil || u.Host == "" || u.Scheme+"://"+u.Host != s:
		return "", v.faultf("want %s, without a path, as browsers send it, got %q", what, s)
	case u.Scheme != "https":
		return "", v.faultf("%q: a page that came in clear may be anybody's: want %s", s, what)
	case u.Host != strings.ToLower(u.Host) || strings.HasSuffix(u.Host, ":443"):
		return "", v.faultf("%q: browsers write the host in small letters and leave out :443: write https://%s", s, strings.TrimSuffix(strings.ToLower(u.Host), ":443"))
	}
	return s, nil
}

// parseTURNURI reads a turn or turns URI (RFC 7065 §3.1).
func parseTURNURI(v value) (string, error) {
	const what = "turns:HOST:PORT?transport=tcp or turn:HOST:PORT?transport=udp"
	s, err := v.text(what)
	if err != nil {
		return "", err
	}
	if _, err := splitTURNURI(s); err != nil {
		return "", v.faultf("want %s, got %q", what, s)
	}
	return s, nil
}

func parseNextHop(v value) (proxy.NextHop, error) {
	const what = "TRANSPORT:HOST:PORT"
	s, err := v.text(what)
	if err != nil {
		return proxy.NextHop{}, err
	}
	n, err := proxy.ParseNextHop(s)
	if err != nil {
		return n, v.faultf("%v", err)
	}
	return n, nil
}

// parseServer is parseAddress for another host's.
func parseServer(v value) (netip.AddrPort, error) {
	a, err := parseAddress(v)
	return a.AddrPort, err
}

// emergencyRoute reads proxy.emergency_route; "" is none.
func emergencyRoute(f *File, v value) error {
	if s, err := v.text("TRANSPORT:HOST:PORT"); err == nil && s == "" {
		return nil
	}
	n, err := parseNextHop(v)
	if err != nil {
		return err
	}
	f.node.Proxy.EmergencyRoute = &n
	return nil
}

// accessNetwork reads proxy.access_network, which may have parameters.
func accessNetwork(f *File, v value) error {
	s, err := v.text("an access type or class")
	if err != nil {
		return err
	}
	if class, _, _ := strings.Cut(s, ";"); !sipext.IsToken(class) {
		return v.want("an access type or class")
	}
	f.node.Proxy.AccessNetwork = s
	return nil
}

// probe reads core.probe, whose 0s is the edge's negative.
func probe(f *File, v value) error {
	to := &f.node.Proxy.Core.Probe
	if err := duration(0, time.Hour, func(*File) *time.Duration { return to })(f, v); err != nil {
		return err
	}
	if *to == 0 {
		*to = -1
	}
	return nil
}

// ttl reads turn.max_ttl.
func ttl(f *File, v value) error {
	var d time.Duration
	if err := duration(0, 100*365*day, func(*File) *time.Duration { return &d })(f, v); err != nil {
		return err
	}
	if err := node.CheckTTL(d); err != nil {
		return v.faultf("%v: %v: below, a browser would renew all the time; above, a stolen credential is worth stealing", d, err)
	}
	f.node.TURN.MaxTTL = d
	return nil
}

// logLevel reads log.level.
func logLevel(f *File, v value) error {
	var word string
	if err := choice(func(*File) *string { return &word }, "debug", "info", "warn", "error")(f, v); err != nil {
		return err
	}
	return f.LogLevel.UnmarshalText([]byte(word))
}
