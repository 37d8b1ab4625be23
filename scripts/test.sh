#!/usr/bin/env bash
# Usage: scripts/test.sh
# Vets and tests every module. Guest code (wasip1) is vetted for its own
# platform too; its tests run natively.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

for dir in $(scripts/modules.sh); do
	cd "$root/$dir"
	host=$(go list ./...)
	guest=$(GOOS=wasip1 GOARCH=wasm go list ./... | grep -E '/(sdk|examples)(/|$)' || true)
	if [ -z "$host$guest" ]; then
		echo "test: module $dir has no packages" >&2
		exit 1
	fi
	if [ -n "$host" ]; then
		echo "test: module $dir"
		go vet ./...
		go test -vet=off -race -shuffle=on ./...
	fi
	if [ -n "$guest" ]; then
		echo "test: module $dir, as a guest"
		# shellcheck disable=SC2086 # one package a word
		GOOS=wasip1 GOARCH=wasm go vet $guest
	fi
done
