#!/usr/bin/env bash
# tests/bench/run.sh [STAGE...]: measures the cost of sockeye, each figure together with its reference in the same run. Prints
# tables, and writes the same as JSON to target/bench/*.json. Fails, after all stages, if a bound is missed or something could
# not be measured. docs/performance.md says what each figure is and how it is measured.
#
#   node          one node's agent compared with libbpf and cilium/ebpf; no cluster
#   pods          links at many pods, and at a new one; no cluster
#   connections   the cost of attached counters for processes that connect, compared with bpftool's; no cluster
#   cluster       how soon a BpfProgram is in effect and Ready, on the local cluster, which this starts and stops
#   scale         a thousand agents on fake kernels and one API server; SOCKEYE_BENCH_NODES and _PROCESSES say how many
#   status        what a write of a BpfNode costs the API server, compared with a bare one
#
# Nothing stays: bpffs, and a tmpfs that keeps disks out of the figures, are mounted in the bench's own mount namespace. Its
# processes end with it, and its cgroup is removed at the end, or by the next run.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/packages.sh
source tests/packages.sh
# shellcheck source=tests/cluster/lib.sh
source tests/cluster/lib.sh
# shellcheck source=deploy/images/lib.sh
source deploy/images/lib.sh
out=$repo/target/bench
bench=$(static_dir release)/sockeye-bench

remove_cgroup() { find "$1" -depth -type d -exec rmdir {} \;; }

# own NAME ENTER... -- OPTION...: runs the bench with a bpffs, a cgroup and a folder of its own. Needs root.
own() {
    local name=$1 mount left enter=()
    shift
    while [[ $1 != -- ]]; do
        enter+=("$1")
        shift
    done
    shift
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
    "${enter[@]}" unshare --mount --propagation private -- \
        "$BASH" -c 'mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs bench "$1" && shift && exec "$@"' bench "$work" \
        "$bench" --json "$out/$name.json" "$name" --bpffs /sys/fs/bpf --cgroup "$cgroup" --work "$work" "$@"
}

# alone NAME OPTION...: runs it without a cluster, with the image's agent; all processes end with the bench.
alone() {
    local name=$1
    shift
    own "$name" unshare --pid --fork --kill-child --mount-proc -- --agent "$(static_dir release)/sockeye-agent" "$@"
}

bench_node() { alone node --libbpf "$out/libbpf" --cilium "$out/cilium" --images "$images_dir"; }

bench_pods() { alone pods --libbpf "$out/libbpf" --cilium "$out/cilium"; }

bench_connections() { alone connections; }

bench_cluster() {
    trap 'tests/cluster/down.sh' EXIT
    tests/cluster/up.sh --images release
    (own cluster target/cluster/run -- --libbpf "$out/libbpf" --node-cgroup "$(cgroup2_mount)/sockeye-node-1")
}

bench_scale() {
    local dir=$repo/target/bench/api
    tests/cluster/build-tools.sh helm
    tests/cluster/cluster.sh api-up "$dir"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now
    trap "tests/cluster/cluster.sh api-down '$dir'; rm -rf '$work'" EXIT
    PATH=$(tools_path) KUBECONFIG=$dir/kubeconfig "$bench" --json "$out/scale.json" scale --work "$work" \
        --operator "$(static_dir release)/sockeye-operator" --nodes "${SOCKEYE_BENCH_NODES:-1000}" \
        --processes "${SOCKEYE_BENCH_PROCESSES:-2}"
}

bench_status() {
    local dir=$repo/target/bench/api
    tests/cluster/cluster.sh api-up "$dir"
    # shellcheck disable=SC2064 # the directory of now
    trap "tests/cluster/cluster.sh api-down '$dir'" EXIT
    PATH=$(tools_path) KUBECONFIG=$dir/kubeconfig "$bench" --json "$out/status.json" status
}

if [[ ${1-} == --as-root ]]; then
    "bench_$2"
    exit
fi

all=(node pods connections cluster scale status)
(($#)) || set -- "${all[@]}"
for what; do
    declare -F "bench_$what" >/dev/null || { echo "no bench $what; there are: ${all[*]}" >&2; exit 2; }
done
need clang-16:clang-16 /usr/include/bpf/libbpf.h:libbpf-dev gcc:gcc /usr/include/stdlib.h:libc6-dev \
    pkg-config:pkg-config buildah:buildah unshare:util-linux bpftool:bpftool
echo "building the images and the bench (some minutes the first time)"
deploy/images/build.sh
# Built like the images' binaries, since some figures are measured in the bench's own process.
build_static release -p sockeye-bench
mkdir -p "$out"
# shellcheck disable=SC2046 # words
gcc -O2 -Wall -Wextra tests/bench/libbpf.c -o "$out/libbpf" $(pkg-config --cflags --libs libbpf)
(cd tests/bench/cilium && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$out/cilium" .)
missed=()
for what; do
    as_root "$BASH" tests/bench/run.sh --as-root "$what" || missed+=("$what")
done
((${#missed[@]} == 0)) || { echo "a bound is missed, or something could not be measured: ${missed[*]}" >&2; exit 1; }
