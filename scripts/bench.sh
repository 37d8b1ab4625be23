#!/usr/bin/env bash
# Usage: BENCH=regexp scripts/bench.sh
# Runs the benchmarks, one package after the other, and closes with their BENCH
# lines: BENCH <name> <value> <unit> target <op><value> <ok|short|->.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(mktemp)
trap 'rm -f "$out"' EXIT
for dir in $(git ls-files -co --exclude-standard -- '*_test.go' | { xargs -r grep -ls '^func Benchmark' || true; } | xargs -r -n1 dirname | LC_ALL=C sort -u); do
	(cd "$dir" && go test -run '^$' -bench "${BENCH:-.}" -timeout 30m .) | tee -a "$out"
done
echo
if ! grep '^BENCH ' "$out"; then
	echo "bench: no benchmark printed a BENCH line" >&2
	exit 1
fi
