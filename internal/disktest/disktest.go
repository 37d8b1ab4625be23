// Package disktest gives a test a small disk of its own: a real file system that
// fills up and can be made read-only, also where the test may not mount. It
// exists on Linux; the package is empty elsewhere.
package disktest
