#!/usr/bin/env bash
# test-images.sh [--older]: builds the images that the local cluster needs beside sockeye's own: the pods' pause container, and
# a toolbox of busybox. With --older also an agent that pretends to be an older one, for tests of version skew.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/images/lib.sh
. "$repo/deploy/images/lib.sh"
work=$images_dir/work
mkdir -p "$work/pause" "$work/toolbox"
gcc -static -Os -o "$work/pause/pause" "$here/images/pause.c"
cp "$(command -v busybox)" "$work/toolbox/busybox"
image pause "$work/pause" 65535 'COPY pause /pause
ENTRYPOINT ["/pause"]'
image toolbox "$work/toolbox" 0 'COPY busybox /bin/busybox
ENV PATH=/bin
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENTRYPOINT ["/bin/sh"]'

[ "${1:-}" = --older ] || exit 0
mkdir -p "$work/agent-older"
# The operator is asked for too, so that cargo finds the dependencies as the images' own build left them.
build_static release --quiet -p sockeye-operator -p sockeye-agent --features sockeye-agent/older
cp "$(static_dir release)/sockeye-agent" "$work/agent-older/sockeye"
# The path that others read is the real agent's again.
build_static release --quiet -p sockeye-operator -p sockeye-agent
image agent-older "$work/agent-older" 0:0 "$(cat "$repo/deploy/images/Containerfile")"
