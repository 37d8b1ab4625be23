#!/usr/bin/env bash
# Usage: scripts/unchanged.sh COMMAND...
# Runs the command and fails if it changed, added or removed a file that git
# does not ignore. What was uncommitted before may stay so.
set -euo pipefail
cd "$(dirname "$0")/.."

state() {
	git ls-files -z -co --exclude-standard | LC_ALL=C sort -zu | xargs -0 -r sha256sum 2>/dev/null || true
}

before=$(mktemp)
after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT
state >"$before"
"$@"
state >"$after"
if ! cmp -s "$before" "$after"; then
	diff "$before" "$after" | sed -nE 's/^[<>] [0-9a-f]{64}  /  /p' | LC_ALL=C sort -u >&2
	echo "unchanged: \"$*\" changed these files: review and commit them" >&2
	exit 1
fi
