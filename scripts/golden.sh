#!/usr/bin/env bash
# Usage: scripts/golden.sh
# Rewrites the golden files of every package whose tests have an -update flag.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh go

for dir in $(git ls-files -co --exclude-standard -- '*_test.go' | { xargs -r grep -ls 'flag\.Bool("update"' || true; } | xargs -r -n1 dirname | LC_ALL=C sort -u); do
	(cd "$dir" && go test . -update)
done
