#!/usr/bin/env bash
# Builds the images that tests need beside sockeye's own: the pods' pause, and a toolbox of busybox.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/images/lib.sh
. "$repo/deploy/images/lib.sh"
work=$repo/target/images/work
mkdir -p "$work/pause" "$work/toolbox"
gcc -static -Os -o "$work/pause/pause" "$here/images/pause.c"
cp "$(command -v busybox)" "$work/toolbox/busybox"
image pause "$work/pause" 65535 'COPY pause /pause
ENTRYPOINT ["/pause"]'
image toolbox "$work/toolbox" 0 'COPY busybox /bin/busybox
ENV PATH=/bin
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENTRYPOINT ["/bin/sh"]'
