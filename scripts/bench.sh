#!/usr/bin/env bash
# Usage: BENCH=regexp scripts/bench.sh
# Measures what DESIGN promises, one line for each figure:
# BENCH <name> <value> <unit> target <op><value> <ok|short|->.
# The cities come from PEERS_DATA_DIR or are fetched once, as for the demo.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -f "${PEERS_DATA_DIR:-}/cities.csv" ]; then
	if [ ! -f bin/cities.csv ]; then
		scripts/need.sh node npm
		scripts/cities.sh bin/cities.csv
	fi
	export PEERS_DATA_DIR=bin
fi
exec go run ./cmd/peers-bench -run "${BENCH:-.}"
