//go:build !linux

package relay

// setDontFragment is for Linux alone: elsewhere DONT-FRAGMENT is an unknown attribute.
func setDontFragment(uintptr, byte, bool) error { return errWhole }
