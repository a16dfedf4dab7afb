// Program registration measures what a registration and an idle flow cost an edge.
//
// N secure WebSocket flows register again and again through an edge, toward a core that
// answers at once:
//
//	this process                 a process of its own       this process
//	flows (WICs) ---- WSS -----> edge ------- UDP --------> core stub
//
// The edges take turns, each in fresh processes: this module's proxy with either approach,
// and Kamailio as a WSS edge with Path and a static credential header, where it is
// installed. Every 200 must carry a credential. What is printed: CPU time of the edge's
// process tree for one registration, throughput, latency, memory of an idle registered
// flow, and how long a storm takes in which every WIC connects at once. Nothing is asserted
// about time; the program fails where a registration does.
//
// The flows and the core share the machine with the edge, so throughput and latency are
// those of all three; CPU time and memory are the edge's alone.
//
//	go run ./bench/registration -rounds 5
//	go run ./bench/registration -profile DIR   # pprof files of our edge; it costs CPU time
package main
