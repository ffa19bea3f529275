#!/usr/bin/env bash
# Builds both binaries, static, and their images: target/images/{operator,agent}.tar, localhost/sockeye-{operator,agent}:dev.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/images/lib.sh
. "$here/lib.sh"

# glibc linked in: no base image is needed. Its name service is not used, since the API server is found by its address.
target=$(rustc -vV | awk '$1 == "host:" {print $2}')
RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --manifest-path "$repo/Cargo.toml" \
  --target "$target" -p sockeye-operator -p sockeye-agent
"$repo/deploy/sbom.sh"
for name in operator agent; do
  context=$images_dir/work/$name
  mkdir -p "$context"
  cp "${CARGO_TARGET_DIR:-$repo/target}/$target/release/sockeye-$name" "$context/sockeye"
  cp "$repo/target/sbom/$name.json" "$context/sbom.json"
  # The agent is root without what makes root dangerous: its pod drops every capability but three.
  user=65532:65532
  [ "$name" = operator ] || user=0:0
  image "$name" "$context" "$user" "$(cat "$here/Containerfile")"
done
