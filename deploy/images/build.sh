#!/usr/bin/env bash
# build.sh [--quick]: builds both binaries, static, and their images: target/images/{operator,agent}.tar, tagged
# localhost/sockeye-{operator,agent}:dev. With --quick they are for the local cluster: hardly optimized, and without an SBOM.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/images/lib.sh
. "$here/lib.sh"

profile=release
[ "${1:-}" != --quick ] || profile=quick
build_static "$profile" -p sockeye-operator -p sockeye-agent
[ "$profile" = quick ] || "$repo/deploy/sbom.sh"
for name in operator agent; do
  context=$images_dir/work/$name
  rm -rf "$context"
  mkdir -p "$context"
  cp "$(static_dir "$profile")/sockeye-$name" "$context/sockeye"
  [ "$profile" = quick ] || cp "$repo/target/sbom/$name.json" "$context/sbom.json"
  # The agent is uid 0; its pod drops every capability but three.
  user=65532:65532
  [ "$name" = operator ] || user=0:0
  image "$name" "$context" "$user" "$(cat "$here/Containerfile")"
done
