#!/usr/bin/env bash
# What sockeye costs, each figure beside libbpf's of the same run: a table, and the same as JSON in target/bench/node.json.
# Exits non-zero if a bound is missed. docs/performance.md says what each figure is and how it is made.
#
# Nothing stays, however it ends: bpffs is mounted in a mount namespace of the bench's own, all processes are in a PID
# namespace that ends with the bench, and its cgroup is removed at the end, or by the next run if this one is killed.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/packages.sh
source tests/packages.sh
# shellcheck source=tests/cgroup.sh
source tests/cgroup.sh
out=$PWD/target/bench

remove_cgroup() { find "$1" -depth -type d -exec rmdir {} \;; }

# measure BINARIES IMAGES, as root: the cgroup, the namespaces, the bench, and all of it undone.
measure() {
    local mount left
    mount=$(cgroup2_mount)
    [[ $mount ]] || { echo "no cgroup v2 is mounted on this machine" >&2; return 1; }
    for left in "$mount"/sockeye-bench-*; do
        [[ ! -d $left || -d /proc/${left##*-} ]] || remove_cgroup "$left"
    done
    work=$(mktemp -d)
    cgroup=$mount/sockeye-bench-$$
    trap 'rm -rf "$work"; remove_cgroup "$cgroup"' EXIT
    mkdir "$cgroup"
    # shellcheck disable=SC2016 # the inner shell's
    unshare --mount --propagation private --pid --fork --kill-child --mount-proc -- \
        "$BASH" -c 'mount -t bpf bpf /sys/fs/bpf && exec "$@"' bench \
        "$1/sockeye-bench" --json "$out/node.json" node --agent "$1/sockeye-agent" --libbpf "$out/libbpf" \
        --bpffs /sys/fs/bpf --cgroup "$cgroup" --images "$2" --work "$work"
}

if [[ ${1-} == --measure ]]; then
    measure "$2" "$3"
    exit
fi

# shellcheck source=deploy/images/lib.sh
source deploy/images/lib.sh
need clang-16:clang-16 /usr/include/bpf/libbpf.h:libbpf-dev gcc:gcc /usr/include/stdlib.h:libc6-dev pkg-config:pkg-config \
    buildah:buildah unshare:util-linux
echo "building the images and the bench (some minutes the first time)"
deploy/images/build.sh
# As the images' binaries are: what is measured in the bench's own process is then the code that ships.
build_static -p sockeye-bench
mkdir -p "$out"
# shellcheck disable=SC2046 # words
gcc -O2 -Wall -Wextra tests/bench/libbpf.c -o "$out/libbpf" $(pkg-config --cflags --libs libbpf)
as_root "$BASH" tests/bench/run.sh --measure "$static_dir" "$images_dir"
