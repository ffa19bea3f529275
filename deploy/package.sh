#!/usr/bin/env bash
# Packages the chart with its SBOM: target/chart/sockeye-VERSION.tgz.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$repo/deploy/sbom.sh"
"$repo/tests/cluster/build-tools.sh" helm
packages=$repo/target/chart
rm -rf "$packages"
mkdir -p "$packages"
cp -r "$repo/deploy/chart" "$packages/sockeye"
cp "$repo/target/sbom/chart.json" "$packages/sockeye/sbom.json"
path=$(source "$repo/tests/cluster/lib.sh" && tools_path)
PATH=$path helm package --destination "$packages" "$packages/sockeye"
rm -rf "$packages/sockeye"
