package config

import (
	"net/netip"

	"epcscf/cmd/internal/node"
	"epcscf/proxy"
)

// checkCoreTLS reads what core.tls names.
func (f *File) checkCoreTLS() {
	hops := f.node.Proxy.NextHops
	if e := f.node.Proxy.EmergencyRoute; e != nil {
		hops = append(hops[:len(hops):len(hops)], *e)
	}
	if f.coreCA == "" {
		for _, n := range hops {
			if isTLS(n) {
				f.addAt("core.tls.ca_file", "is missing, and %s is reached over TLS: write the file of the authorities that the core's certificates are from", n)
			}
		}
		if f.coreTLS != (pairFiles{}) {
			f.addAt("core.tls", "want ca_file too: whose certificates are the core's?")
		}
		return
	}
	if f.coreTLS.cert == "" || f.coreTLS.key == "" {
		f.addAt("core.tls", "want cert_file and key_file too: the core sees by them that we are its edge")
		return
	}
	pool := f.authorities("core.tls.ca_file", f.coreCA)
	f.node.CoreTLS = &node.CoreTLS{
		Listen: node.Address{
			AddrPort: netip.AddrPortFrom(f.node.Core.Addr(), f.coreTLSPort),
			From:     from(f.Name, f.at["core.tls"].line, "core.tls.port"),
		},
		Certificate: f.certificate("core.tls", f.coreTLS), Authorities: pool,
	}
}

// isTLS reports whether a next hop is reached over TLS whatever DNS says.
func isTLS(n proxy.NextHop) bool { return n.Transport == "tls" || n.Transport == "sips" }
