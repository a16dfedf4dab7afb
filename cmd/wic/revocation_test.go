package main

import (
	"testing"

	"epcscf/cmd/internal/node"
)

// A de-registration ends the binding's allocations and refuses new ones, by the time its
// 200 is here, while the same user's second device keeps its call; a new registration gets
// a credential that works at once.
func TestDeregistrationEndsOneDeviceOnly(t *testing.T) {
	for _, a := range approaches {
		t.Run(string(a), func(t *testing.T) {
			d := startDemo(t, func(c *node.Demo) { c.Approach = a })
			server := d.turnUDP(t)
			phone, laptop, bob := d.register(t, "alice"), d.register(t, "alice"), d.register(t, "bob")
			gone := phone.cred

			onPhone, onLaptop, atBob := allocate(t, server, phone.cred), allocate(t, server, laptop.cred), allocate(t, server, bob.cred)
			exchange(t, onPhone, atBob)
			exchange(t, onLaptop, atBob)

			if err := phone.Deregister(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := d.allocations(t); n != 2 {
				t.Errorf("%d allocations live after the 200, want the two of others", n)
			}
			if err := onPhone.client.CreatePermission(atBob.LocalAddr()); err == nil {
				t.Error("the de-registered device's allocation takes a permission")
			}
			if _, err := turnClient(t, server, gone).Allocate(); err == nil {
				t.Error("the de-registered device's credential makes an allocation")
			}
			exchange(t, onLaptop, atBob)

			phone.refresh(t)
			exchange(t, allocate(t, server, phone.cred), atBob)
			if _, err := turnClient(t, server, gone).Allocate(); err == nil {
				t.Error("the old credential works again after a new registration")
			}
		})
	}
}
