// Program relay measures what a relayed packet, an allocation and an idle allocation cost a
// TURN server.
//
//	this process                a process of its own             this process
//	clients -- ChannelData ---> TURN server ---- UDP ----------> peers, each of one allocation
//	        <------------------             <------------------- that echo
//
// The servers take turns at each point: this module's relay, coturn where it is installed,
// and pion/turn as it comes. What is printed: CPU time of the server's process for one
// relayed packet (each echo is two), loss, the round trip, the most that loses under 1 %,
// what an Allocate costs (with the 401 before it), and the memory of an idle allocation.
// Nothing is asserted about time; the program fails where an allocation does.
//
// Clients send evenly over the allocations, in ticks of a quarter of a millisecond, and are
// looked at in the same ticks; the time of arrival is the kernel's. Peers answer at once.
// So a server's packets wake nobody but the peers' one thread, as packets that leave on a
// wire wake nobody.
//
//	go run ./bench/relay -rounds 5
//	go run ./bench/relay -only epcscf,coturn -points 20x172@60000 -idle 0 -max=false
//	go run ./bench/relay -profile DIR   # a CPU profile of ours; it costs CPU time
package main
