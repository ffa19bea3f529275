#!/usr/bin/env bash
# Builds both binaries, static, and their images: target/images/{operator,agent}.tar, localhost/sockeye-{operator,agent}:dev.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/images/lib.sh
. "$here/lib.sh"

build_static -p sockeye-operator -p sockeye-agent
for name in operator agent; do
  context=$images_dir/work/$name
  mkdir -p "$context"
  cp "$static_dir/sockeye-$name" "$context/sockeye"
  # The agent is root without what makes root dangerous: its pod drops every capability but three.
  user=65532:65532
  [ "$name" = operator ] || user=0:0
  image "$name" "$context" "$user" "$(cat "$here/Containerfile")"
done
