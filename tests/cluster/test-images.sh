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

# With the operator asked for too, what both stand on is what their own images' build has built.
build_static --quiet -p sockeye-operator -p sockeye-agent --features sockeye-agent/older
cp "$static_dir/sockeye-agent" "$work/agent-older/sockeye"
# Others take the real one from there.
build_static --quiet -p sockeye-operator -p sockeye-agent
cp "$repo/target/sbom/agent.json" "$work/agent-older/sbom.json"
image agent-older "$work/agent-older" 0:0 "$(cat "$repo/deploy/images/Containerfile")"
