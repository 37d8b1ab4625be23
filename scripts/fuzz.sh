#!/usr/bin/env bash
# Usage: FUZZTIME=10s scripts/fuzz.sh
# Runs every fuzz target of every module for FUZZTIME on one core, as many at
# once as there are cores. A failing input is left in the package's
# testdata/fuzz: commit it with the mend.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export FUZZTIME=${FUZZTIME:-10s}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cores=$(getconf _NPROCESSORS_ONLN)

case "$FUZZTIME" in
*[!0-9]s | *[!0-9]m) bad=1 ;;
[0-9]*s) seconds=${FUZZTIME%s} ;;
[0-9]*m) seconds=$((${FUZZTIME%m} * 60)) ;;
*) bad=1 ;;
esac
if [ -n "${bad:-}" ]; then
	echo "fuzz: FUZZTIME is $FUZZTIME; it must be whole seconds or minutes, such as 10s or 5m" >&2
	exit 2
fi
# A target that neither ends nor fails is killed.
export LIMIT=$((seconds + 60))

# One instrumented binary for each package, then one line for each target.
git ls-files -co --exclude-standard -- '*_test.go' ':!*/testdata/*' | tr '\n' '\0' |
	{ xargs -0 -r grep -Hos '^func Fuzz[A-Za-z0-9_]*([a-z]* \*testing\.F)' || true; } |
	sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*).*|\1 \2|' | LC_ALL=C sort -u >"$work/targets"
if ! [ -s "$work/targets" ]; then
	echo "fuzz: there are no fuzz targets" >&2
	exit 1
fi
count=0
for dir in $(cut -d' ' -f1 "$work/targets" | uniq); do
	count=$((count + 1))
	cd "$root/$dir"
	go test -c -vet=off -fuzz=. -o "$work/$count.test" .
	cache="$(go env GOCACHE)/fuzz/$(go list .)"
	awk -v dir="$dir" -v bin="$work/$count.test" -v cache="$cache" '$1 == dir {print dir, $2, bin, cache}' "$work/targets" >>"$work/jobs"
done
cd "$root"
echo "fuzz: $(wc -l <"$work/jobs") targets in $count packages, $FUZZTIME each, $cores at once"

# Reads a target's output; prints how many inputs it ran, and "hung" if it ran
# many and then, for five seconds or more, none: go test lets an input that
# never ends pass.
progress() {
	awk '
		match($0, /elapsed: [0-9hms]+, execs: [0-9]+/) {
			split(substr($0, RSTART, RLENGTH), word, /[ ,]+/)
			n = split(word[2], part, /[hms]/); t = 0
			for (i = 1; i < n; i++) t = t * 60 + part[i]
			if (word[4] != execs) { execs = word[4]; since = t }
			last = t
		}
		END { print execs + 0, (last - since >= 5 && execs >= 100 * since) ? "hung" : "ok" }'
}

one() {
	local dir=$1 name=$2 bin=$3 cache=$4 out code=0 execs state
	mkdir -p "$cache"
	# Making interesting inputs small is bounded: left to itself it takes most
	# of the time, and a target runs a handful of inputs (go.dev/issue/48820).
	out=$(cd "$dir" && timeout --kill-after=10 "$LIMIT" "$bin" -test.run='^$' -test.fuzz="^$name\$" \
		-test.fuzztime="$FUZZTIME" -test.fuzzminimizetime=100x -test.parallel=1 -test.fuzzcachedir="$cache" 2>&1) || code=$?
	read -r execs state <<<"$(progress <<<"$out")"
	# Up to Go 1.26 a target may fail for no other reason than that its time is
	# over: go.dev/issue/75804. Then this one line is all it says.
	if [ "$code" -ne 0 ] && grep -q '^    context deadline exceeded$' <<<"$out" &&
		! grep -qE 'Failing input|panic:|fatal error:|terminated unexpectedly|\.go:[0-9]+:' <<<"$out"; then
		code=0
	fi
	if [ "$code" -eq 0 ] && [ "$execs" -gt 0 ] && [ "$state" = ok ]; then
		echo "fuzz: ok $dir $name, $execs inputs"
		return
	fi
	printf '%s\nfuzz: FAILED %s %s (exit %d, %d inputs, %s)\n' "$out" "$dir" "$name" "$code" "$execs" "$state"
	return 1
}
export -f one progress
xargs -P "$cores" -L1 bash -c 'one "$@"' one <"$work/jobs"
