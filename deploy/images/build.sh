#!/usr/bin/env bash
# Builds both binaries, static, and their images: target/images/{operator,agent}.tar, localhost/sockeye-{operator,agent}:dev.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/images/lib.sh
. "$here/lib.sh"

build_static -p sockeye-operator -p sockeye-agent
"$repo/deploy/sbom.sh"
for name in operator agent; do
  context=$images_dir/work/$name
  mkdir -p "$context"
  cp "$static_dir/sockeye-$name" "$context/sockeye"
  cp "$repo/target/sbom/$name.json" "$context/sbom.json"
  # The agent is root without what makes root dangerous: its pod drops every capability but three.
  user=65532:65532
  [ "$name" = operator ] || user=0:0
  image "$name" "$context" "$user" "$(cat "$here/Containerfile")"
done
