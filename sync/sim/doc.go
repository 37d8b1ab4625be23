// Package sim is the simulator of sync: it holds no code but tests.
//
// A seed decides everything: how many devices a user has, which of them are
// certified when, what they write, how connections lose, repeat and reorder
// frames, when a process dies before or after its commit, which clock is wrong,
// which home is copied or restored. The code that runs is the real one, from
// record to replica, over the store's twin in memory and for some seeds over
// bbolt; only time, randomness and the wire are the simulator's. One goroutine
// runs a seed, so the same seed is the same run, to the last bit of its trace.
//
// While it runs, and when all faults have been healed, each device's state is
// compared with that of a model (model_test.go), which reads the rules of
// docs/spec as plainly as possible: it takes the set of batches that the device
// holds and the control log, and computes from nothing what must be visible.
//
//	go test ./sync/sim -run TestSim -seeds 1000    more seeds
//	go test ./sync/sim -run TestSim -seed 42 -v    one seed, with its trace
package sim
