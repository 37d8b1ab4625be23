//go:build race

package web_test

// raced tells that the runtime here is several times slower than it is for people.
const raced = true
