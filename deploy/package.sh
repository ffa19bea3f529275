#!/usr/bin/env bash
# Packages the chart with its SBOM: target/chart/sockeye-VERSION.tgz.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$repo/deploy/sbom.sh"
"$repo/tests/cluster/build-tools.sh" helm
out=$repo/target/chart
rm -rf "$out"
mkdir -p "$out"
cp -r "$repo/deploy/chart" "$out/sockeye"
cp "$repo/target/sbom/chart.json" "$out/sockeye/sbom.json"
PATH=$(source "$repo/tests/cluster/lib.sh" && tools_path) helm package --destination "$out" "$out/sockeye"
rm -rf "$out/sockeye"
