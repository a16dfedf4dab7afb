// Package node puts the parts together: configuration, wiring, sockets, life and the
// admin listener. It is the only package that knows all the others.
//
//	            https, wss                SIP over UDP, TCP
//	browser ---------------> Node.https ------> proxy -----> core, or proxy/minicore
//	   |                        |  page           |             on a loopback socket
//	   |                        wic               | turncred.Provisioner
//	   | turn, turns                              v
//	   +----------------------------------------> relay
//
// Listen opens every socket, so what fails, fails before anything is announced; Run
// serves until its context ends.
package node
