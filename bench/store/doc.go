// Program store measures what it costs to write a credential down.
//
// Each kind of store is filled with live credentials. Then credentials are issued one by one
// at a steady rate, whatever the store's answers take (an open loop, so that a stall is
// counted for all who wait in it), and the time from when each was due to when its write had
// been promised is measured. Beside it stands what one fdatasync of 4 KiB takes on the same
// disk, in the same round: no promise can be faster. The stores take turns. Then the store
// is closed and opened, and all that is live is read.
//
// Nothing is asserted about time; the program fails where a write does.
//
//	go run ./bench/store -live 1000000 -length 10s
package main
