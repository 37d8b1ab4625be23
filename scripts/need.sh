#!/usr/bin/env bash
# Usage: scripts/need.sh TOOL...
# Makes sure that the named commands are there. What is missing is installed
# where that can be done without asking (Debian, as root or with passwordless
# sudo); elsewhere one line says what to install, and the exit is non-zero.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin" # nft and avahi-daemon, for people other than root

# The Debian packages that a command comes in.
packages() {
	case "$1" in
	gcc) echo gcc libc6-dev ;;
	nft) echo nftables ;;
	ip) echo iproute2 ;;
	*) echo "$1" ;;
	esac
}

missing=()
wanted=()
for tool in "$@"; do
	if ! command -v "$tool" >/dev/null; then
		missing+=("$tool")
		read -ra names <<<"$(packages "$tool")"
		wanted+=("${names[@]}")
	fi
done
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi

for tool in "${missing[@]}"; do
	if [ "$tool" = go ]; then
		echo "need: install Go 1.26 or newer (https://go.dev/dl), then run this again" >&2
		exit 1
	fi
done

root=()
if [ "$(id -u)" -ne 0 ]; then
	root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${root[@]}" true 2>/dev/null; then
	echo "need: install ${missing[*]} (Debian: apt-get install ${wanted[*]}), then run this again" >&2
	exit 1
fi

echo "need: installing ${wanted[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1
}
# An update that reaches only some of its sources is not yet a failure: the
# install decides.
apt update || true
if ! apt install -y --no-install-recommends "${wanted[@]}"; then
	cat "$log" >&2
	echo "need: apt-get could not install ${wanted[*]}: see above" >&2
	exit 1
fi
for tool in "${missing[@]}"; do
	if ! command -v "$tool" >/dev/null; then
		echo "need: $tool is still missing after installing ${wanted[*]}" >&2
		exit 1
	fi
done
