#!/usr/bin/env bash
# tests/run.sh [STAGE...]: all tests, or some stages; each sets up what it needs. Ends with one line,
# "N passed, N failed".
#
# Counted are the test runner's own "test result:" lines. A stage that ends badly without a failure counted there (it did
# not compile, the cluster did not come up) is one failure.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/packages.sh
source tests/packages.sh

# integration FEATURES TEST... [-- OPTION...]: the integration tests of these names, with these features of their crates.
# It is always the whole workspace that is asked for: cargo then gives all crates that it stands on the same features in every
# stage, and builds each once.
integration() {
    local names=() features=$1
    shift
    while (($#)) && [[ $1 != -- ]]; do
        names+=(--test "$1")
        shift
    done
    cargo test --locked --no-fail-fast --workspace --features "$features" "${names[@]}" "$@"
}

# Pure code and properties: every crate, no privileges, no network.
stage_unit() {
    need clang-16:clang-16 /usr/include/bpf/bpf_helpers.h:libbpf-dev lua5.4:lua5.4
    cargo test --locked --no-fail-fast --workspace
}

# The agent alone on this machine's kernel. Needs root; each test has a bpffs and a cgroup of its own.
stage_kernel() {
    need clang-16:clang-16 /usr/include/bpf/bpf_helpers.h:libbpf-dev bpftool:bpftool nsenter:util-linux
    # They wait more than they work.
    integration sockeye-agent/kernel-tests kernel -- --test-threads="$((2 * $(nproc)))"
}

# The agent's hook against the runtime's own half of NRI, which is Go. Needs no root.
stage_nri() {
    integration sockeye-agent/nri-tests nri
}

# The same tests, and a real reboot, on Debian's 6.1 and 6.12, as guests under emulation.
stage_kernels() {
    need clang-16:clang-16 /usr/include/bpf/bpf_helpers.h:libbpf-dev bpftool:bpftool busybox:busybox-static \
        qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs strip:binutils nsenter:util-linux \
        /etc/ssl/certs/ca-certificates.crt:ca-certificates
    tests/kernels/run.sh
}

# Schemas, the chart's rights, what many nodes cost, and what happens while it is away, on a real API server, on loopback.
# Needs root, for the last of these.
stage_api() {
    local dir=$PWD/target/api
    need setpriv:util-linux clang-16:clang-16 /usr/include/bpf/bpf_helpers.h:libbpf-dev bpftool:bpftool
    tests/cluster/build-tools.sh helm
    tests/cluster/cluster.sh api-up "$dir"
    # shellcheck disable=SC2064 # the directory of now
    trap "tests/cluster/cluster.sh api-down '$dir'" EXIT
    local path features=sockeye-tests/api,sockeye-bench/api
    path=$(source tests/cluster/lib.sh && tools_path)
    export PATH=$path KUBECONFIG=$dir/kubeconfig
    integration $features api rights -- --test-threads=1
    # What these start; with a test beside them, for the same features.
    cargo build --locked --workspace --features $features --bins --test scale
    integration $features scale
    # The last, for it stops the API server.
    integration $features api_away -- --test-threads=1
}

# The main job, what the pods hold, and the release's life by Helm 4 and 3, on a real two-node cluster, which this brings up
# and takes down.
stage_e2e() {
    need bpftool:bpftool busybox:busybox-static setpriv:util-linux
    trap 'tests/cluster/down.sh' EXIT
    tests/cluster/build-tools.sh helm3
    tests/cluster/up.sh
    integration sockeye-tests/e2e e2e pods together nothing_lost privileges lifecycle -- --test-threads=1
}

all=(unit nri kernel kernels api e2e)

counted() { # passed and failed, by the logs given
    awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$@"
}

(($#)) || set -- "${all[@]}"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
broken=0
for stage; do
    declare -F "stage_$stage" >/dev/null || { echo "no stage $stage; there are: ${all[*]}" >&2; exit 2; }
    started=$SECONDS
    echo "== $stage"
    # Not within `if`, where bash ignores errexit.
    set +e
    (set -e; trap - EXIT; "stage_$stage") 2>&1 | tee "$logs/$stage"
    status=${PIPESTATUS[0]}
    set -e
    read -r _ failed < <(counted "$logs/$stage")
    ((status == 0 || failed > 0)) || broken=$((broken + 1))
    echo "== $stage: $( ((status)) && echo FAILED || echo passed), $((SECONDS - started)) s"
done

read -r passed failed < <(counted "$logs"/*)
failed=$((failed + broken))
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
