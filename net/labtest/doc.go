// Package labtest builds networks of Linux network namespaces for tests: hosts
// with their own interfaces, routes and firewalls on one machine. It needs root
// and iproute2, and fails a test that has neither instead of skipping it.
package labtest
