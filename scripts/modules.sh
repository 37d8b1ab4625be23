#!/usr/bin/env bash
# Usage: scripts/modules.sh
# Prints the folder of every Go module in the repository, the root first. The
# module of the lint tools holds no Go of its own and is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files -co --exclude-standard -- go.mod '*/go.mod' ':!tools/go.mod' ':!*/testdata/*' |
	xargs -r -n1 dirname | LC_ALL=C sort
