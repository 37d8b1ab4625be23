#!/usr/bin/env bash
# Usage: SEEDS=n scripts/sim.sh
# Runs the simulator: the tests named TestSim… of the packages whose tests have
# a -seeds flag.
set -euo pipefail
cd "$(dirname "$0")/.."

dirs=$(git ls-files -co --exclude-standard -- '*_test.go' | { xargs -r grep -ls 'flag\.Int("seeds"' || true; } | xargs -r -n1 dirname | LC_ALL=C sort -u)
if [ -z "$dirs" ]; then
	echo "sim: no test has a -seeds flag" >&2
	exit 1
fi
for dir in $dirs; do
	go test -count=1 -run '^TestSim' "./$dir" -seeds="${SEEDS:-1000}"
done
