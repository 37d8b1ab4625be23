#!/usr/bin/env bash
# Usage: scripts/examples.sh
# Packs every folder of examples/ into bin/apps/, and runs the tests of those
# that have some.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin/apps
for dir in examples/*/; do
	app=$(basename "$dir")
	bin/peers-pack "$dir" "bin/apps/$app.peersapp"
done
