#!/usr/bin/env bash
# Usage: scripts/release.sh
# Builds every command for every platform into dist/, with the licences of all
# that is linked in and a list of SHA-256 sums. The version is the checkout's:
# Go reads it from git.
set -euo pipefail
cd "$(dirname "$0")/.."

platforms="linux/amd64 linux/arm64 linux/arm darwin/amd64 darwin/arm64 windows/amd64 windows/arm64"
rm -rf dist
mkdir dist
for main in cmd/*/main.go; do
	command=$(dirname "$main")
	for p in $platforms; do
		os=${p%/*} arch=${p#*/} suffix=
		if [ "$os" = windows ]; then
			suffix=.exe
		fi
		out=dist/$(basename "$command")_${os}_$arch$suffix
		echo "$out"
		CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath -buildvcs=true -ldflags='-s -w' -o "$out" "./$command"
	done
done
cp LICENSE NOTICE dist/
scripts/thirdparty.sh texts >dist/THIRD-PARTY.txt
(cd dist && sha256sum ./* | sed 's| \./| |' >"$OLDPWD/dist.sums")
mv dist.sums dist/SHA256SUMS
