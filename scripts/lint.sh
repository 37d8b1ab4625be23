#!/usr/bin/env bash
# Usage: scripts/lint.sh
# Runs staticcheck over every module, and over guest code for wasip1.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
scripts/need.sh go
staticcheck=$(go tool -modfile=tools/go.mod -n staticcheck)

for dir in $(scripts/modules.sh); do
	cd "$root/$dir"
	if [ -n "$(go list ./...)" ]; then
		"$staticcheck" ./...
	fi
	guest=$(GOOS=wasip1 GOARCH=wasm go list ./... | grep -E '/(sdk|examples)(/|$)' || true)
	if [ -n "$guest" ]; then
		# U1000 does not know go:wasmexport, by which the host calls a guest.
		# shellcheck disable=SC2086 # one package a word
		GOOS=wasip1 GOARCH=wasm "$staticcheck" -checks inherit,-U1000 $guest
	fi
done
