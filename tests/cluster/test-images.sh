#!/usr/bin/env bash
# Builds the images that tests need beside sockeye's own: the pods' pause, a toolbox of busybox, and an agent that pretends
# to be an older one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/images/lib.sh
. "$repo/deploy/images/lib.sh"
work=$repo/target/images/work
mkdir -p "$work/pause" "$work/toolbox" "$work/agent-older"
gcc -static -Os -o "$work/pause/pause" "$here/images/pause.c"
cp "$(command -v busybox)" "$work/toolbox/busybox"
image pause "$work/pause" 65535 'COPY pause /pause
ENTRYPOINT ["/pause"]'
image toolbox "$work/toolbox" 0 'COPY busybox /bin/busybox
ENV PATH=/bin
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENTRYPOINT ["/bin/sh"]'

# As the unit tests build it, so that what they have built is not built again.
cargo rustc --locked --quiet --manifest-path "$repo/Cargo.toml" -p sockeye-agent --bin sockeye-agent --features older -- \
  -C target-feature=+crt-static
cp "${CARGO_TARGET_DIR:-$repo/target}/debug/sockeye-agent" "$work/agent-older/sockeye"
cp "$repo/target/sbom/agent.json" "$work/agent-older/sbom.json"
image agent-older "$work/agent-older" 0:0 "$(cat "$repo/deploy/images/Containerfile")"
