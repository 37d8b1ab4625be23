#!/usr/bin/env bash
# Usage: scripts/golden.sh
# Rewrites the golden files of every package whose tests compare with them.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh go

git ls-files -co --exclude-standard -- '*_test.go' ':!internal/golden' | { xargs -r grep -ls '/internal/golden"$' || true; } |
	xargs -r -n1 dirname | sed 's,^,./,' | LC_ALL=C sort -u | xargs -r sh -c 'go test "$@" -update' golden
