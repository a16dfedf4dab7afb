package relay

import "syscall"

// setDontFragment sets what a socket of Linux does with datagrams beyond the path's MTU.
// PROBE sets DF and leaves the path to the client, who is looking for it: what the kernel
// has learnt of it would stop his probes.
func setDontFragment(fd uintptr, family byte, whole bool) error {
	if family == familyIPv4 {
		how := syscall.IP_PMTUDISC_DONT
		if whole {
			how = syscall.IP_PMTUDISC_PROBE
		}
		return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, how)
	}
	how := syscall.IPV6_PMTUDISC_WANT // which fragments here, at the source
	if whole {
		how = syscall.IPV6_PMTUDISC_PROBE
	}
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MTU_DISCOVER, how)
}
