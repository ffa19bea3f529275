#!/usr/bin/env bash
# tests/run.sh [STAGE...]: runs all tests, or some stages; each stage sets up what it needs. Ends with one line,
# "N passed, N failed".
#
# The lanes below run side by side, the stages of a lane one after the other. What a stage prints is in target/tests/STAGE.log
# too. Builds and stages that compute yield the processor (nice) to those that measure times.
#
# The messages that a stage's tests provoke must be in docs/reasons.json (tests/lint/reasons.py).
#
# Counted are the test runner's own "test result:" lines. A stage that ends badly without a failure counted there (it did
# not compile, the cluster did not come up) is one failure.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/packages.sh
source tests/packages.sh
# shellcheck source=tests/cargo.sh
source tests/cargo.sh

# The longest lane is first. The last one computes.
lanes=("e2e" "kernel api" "unit simulation oracle nri registry kernels${SOCKEYE_CHAOS:+ arm64 signatures release}")

# The Debian packages of each stage, as THING:PACKAGE (tests/packages.sh).
builds="clang-16:clang-16 /usr/include/bpf/bpf_helpers.h:libbpf-dev"
declare -A packages=(
    [unit]="$builds lua5.4:lua5.4 /usr/bin/python3:python3-minimal"
    [oracle]="$builds llvm-strip-16:llvm-16 bpftool:bpftool gcc:gcc /usr/include/gelf.h:libelf-dev /usr/include/zlib.h:zlib1g-dev
        /usr/bin/pdb3:python3 xz:xz-utils zstd:zstd lz4:lz4"
    [simulation]="$builds"
    [nri]="$builds"
    [registry]="$builds buildah:buildah /etc/ssl/certs/ca-certificates.crt:ca-certificates"
    [kernel]="$builds bpftool:bpftool nsenter:util-linux /usr/bin/python3:python3-minimal"
    [kernels]="$builds bpftool:bpftool busybox:busybox-static qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs
        strip:binutils nsenter:util-linux runc:runc gcc:gcc /usr/include/gelf.h:libelf-dev /usr/include/zlib.h:zlib1g-dev
        /usr/bin/python3:python3-minimal xz:xz-utils zstd:zstd lz4:lz4 /etc/ssl/certs/ca-certificates.crt:ca-certificates"
    [arm64]="busybox:busybox-static qemu-system-aarch64:qemu-system-arm mmdebstrap:mmdebstrap mke2fs:e2fsprogs
        /etc/ssl/certs/ca-certificates.crt:ca-certificates"
    [release]="$builds mmdebstrap:mmdebstrap qemu-aarch64-static:qemu-user-static xz:xz-utils
        /etc/ssl/certs/ca-certificates.crt:ca-certificates /usr/bin/python3:python3-minimal"
    [signatures]="openssl:openssl curl:curl faketime:faketime ip:iproute2
        /usr/bin/python3:python3-minimal"
    [api]="$builds setpriv:util-linux bpftool:bpftool strip:binutils"
    [e2e]="$builds bpftool:bpftool busybox:busybox-static setpriv:util-linux llvm-strip-16:llvm-16 curl:curl"
)

# Pure code and properties: every crate, no privileges, no network.
stage_unit() {
    local tests=() name
    renice -n 5 -p "$BASHPID" >/dev/null
    for name in $(plain_tests); do
        # These are stages of their own.
        [[ $name == nri || $name == simulation ]] || tests+=(--test "$name")
    done
    cargo_test --lib --bins "${tests[@]}"
}

# What the linker loads against what libbpf loads. Needs no root; as root, the oracle itself is tested against this kernel.
stage_oracle() {
    local failed=
    renice -n 5 -p "$BASHPID" >/dev/null
    tests/oracle/compare.sh || failed=1
    tests/oracle/real.sh || failed=1
    [[ ! $failed ]]
}

# The operator and the agents in random worlds: 800 fixed ones, in the long form many more from a random seed.
# SOCKEYE_SEED is one world's seed. Needs no root.
stage_simulation() {
    renice -n 5 -p "$BASHPID" >/dev/null
    cargo_test --test simulation -- --nocapture
}

# The agent's hook against the runtime's own half of NRI, which is Go. Needs no root.
stage_nri() {
    cargo_test --test nri
}

# The pull client against real registries, with what oras and cosign push. Needs Go, and Debian's archive once; buildah
# needs root.
stage_registry() {
    renice -n 5 -p "$BASHPID" >/dev/null
    tests/registry/tools.sh >/dev/null
    cargo_test --test registries
}

# The agent alone on this machine's kernel. Needs root; each test has a bpffs and a cgroup of its own.
stage_kernel() {
    # They wait more than they work.
    cargo_test --test kernel -- --test-threads="$((2 * $(nproc)))"
}

# The same tests, and a real reboot, on Debian's 5.10, 6.1, 6.12 and 7.2, as guests under emulation. Then the features of all
# kernels by which the linker is tested.
stage_kernels() {
    local failed=
    renice -n 10 -p "$BASHPID" >/dev/null
    tests/kernels/run.sh || failed=1
    tests/oracle/tables.sh || failed=1
    [[ ! $failed ]]
}

# The same on 6.12 for arm64, on an emulated processor of that kind; in the long form alone, since it is built anew.
stage_arm64() {
    renice -n 10 -p "$BASHPID" >/dev/null
    tests/kernels/arm64.sh
}

# Signatures that cosign makes anew, by keys and with the real services that sign by identity, against what cosign says of
# them; in the long form alone, since the services are built. Needs root.
stage_signatures() {
    local made=$PWD/target/signatures
    renice -n 10 -p "$BASHPID" >/dev/null
    tests/signatures/make.sh "$made"
    tests/signatures/keyless.sh "$made"
    SOCKEYE_SIGNATURES=$made PROPTEST_CASES=${PROPTEST_CASES:-5000} cargo_test --test cosign --test keyless
}

# Schemas, the chart's rights, what many nodes cost, and what happens while it is away, on a real API server, on loopback.
# Needs root, for the last of these.
stage_api() {
    local dir=$PWD/target/api
    nice -n 5 tests/cluster/build-tools.sh helm helm3 etcd kube-apiserver kubectl kubectl-krew validate-krew-manifest
    tests/cluster/cluster.sh api-up "$dir"
    # shellcheck disable=SC2064 # the directory of now
    trap "tests/cluster/cluster.sh api-down '$dir'" EXIT
    local path
    path=$(source tests/cluster/lib.sh && tools_path)
    export PATH=$path KUBECONFIG=$dir/kubeconfig
    # Some tests start the binaries of other crates, which cargo builds only if they are asked for.
    nice -n 5 cargo build --locked --workspace --features "$test_features" --bins
    tests/registry/tools.sh >/dev/null
    cargo_test --test api --test cli_api --test rights --test leader --test pulls -- --test-threads=1
    cargo_test --test scale --test krew
    # The last, for it stops the API server.
    cargo_test --test api_away -- --test-threads=1
}

# The main job, what the pods hold, and the release's life by Helm 4 and 3, on a real two-node cluster, which this brings up
# and takes down.
stage_e2e() {
    trap 'tests/cluster/down.sh' EXIT
    nice -n 5 tests/cluster/build-tools.sh
    nice -n 5 tests/cluster/build-tools.sh helm3
    nice -n 5 tests/cluster/cluster.sh images test
    tests/cluster/up.sh --images test
    cargo_test --test e2e --test signed_images --test signed_install --test hostile_registry --test mistakes --test tutorial \
        --test pods --test together --test nothing_lost --test privileges --test read_api --test lifecycle \
        -- --test-threads=1
}

# Two builds of the release for both architectures, compared, published and checked; in the long form alone.
stage_release() {
    renice -n 10 -p "$BASHPID" >/dev/null
    tests/release.sh
}

counted() { # passed and failed, by the logs given
    awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$@" </dev/null
}

# lane STAGE...: runs stages one after the other, and prints what they print, named where there are several lanes. Told to end,
# it waits until its stage has cleaned up.
lane() {
    local stage started status follower told_to_end=
    trap 'told_to_end=1' TERM
    for stage; do
        started=$SECONDS status=0
        echo "== $stage"
        : >"$logs/$stage.log"
        # In the background, since bash ignores errexit in what `||` or `if` looks at.
        (
            trap 'exit 143' TERM
            trap - EXIT
            set -e
            export SOCKEYE_REASONS=$PWD/target/reasons/$stage.jsonl
            "stage_$stage"
            /usr/bin/python3 tests/lint/reasons.py compare "$stage"
        ) >"$logs/$stage.log" 2>&1 </dev/null &
        local child=$!
        tail --pid="$child" -n +1 -f "$logs/$stage.log" | sed -u "$([[ $several ]] && echo "s/^/$stage: /")" &
        follower=$!
        wait "$child" || status=$?
        # A signal ends `wait`, not the stage.
        while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
        [[ ! $told_to_end ]] || return 0
        wait "$follower" || true
        echo "$status" >"$logs/$stage.status"
        echo "== $stage: $( ((status)) && echo FAILED || echo passed), $((SECONDS - started)) s"
    done
}

# Ends all lanes: their processes, then what their stages clean up.
end() {
    local pid
    trap - INT TERM HUP
    for pid in "${running[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    wait
    exit 130
}

(($#)) || read -ra stages <<<"${lanes[*]}"
(($# == 0)) || stages=("$@")
logs=$PWD/target/tests
mkdir -p "$logs" target/reasons
needed=(/usr/bin/python3:python3-minimal)
for stage in "${stages[@]}"; do
    declare -F "stage_$stage" >/dev/null || { echo "no stage $stage; there are: ${lanes[*]}" >&2; exit 2; }
    rm -f "$logs/$stage".* "target/reasons/$stage.jsonl"
    read -ra words <<<"${packages[$stage]//$'\n'/ }"
    needed+=("${words[@]}")
done
# Two lanes can't install packages at the same time.
need "${needed[@]}"
[[ " ${stages[*]} " != *" e2e "* ]] || tests/cluster/install-packages.sh

chosen=()
for lane in "${lanes[@]}"; do
    of_lane=()
    for stage in $lane; do
        [[ " ${stages[*]} " != *" $stage "* ]] || of_lane+=("$stage")
    done
    ((${#of_lane[@]} == 0)) || chosen+=("${of_lane[*]}")
done
several=
((${#chosen[@]} == 1)) || several=1
running=()
trap end INT TERM HUP
# Each lane is a process group.
set -m
for stages_of_lane in "${chosen[@]}"; do
    # shellcheck disable=SC2086 # words
    lane $stages_of_lane &
    running+=($!)
done
set +m
wait || true

broken=0
for stage in "${stages[@]}"; do
    status=$(cat "$logs/$stage.status" 2>/dev/null || echo 1)
    read -r _ failed < <(counted "$logs/$stage.log")
    ((status == 0 || failed > 0)) || broken=$((broken + 1))
    ! ((status)) || sed -n "s/^test \(.*\) \.\.\. FAILED$/failed in $stage: \1/p" "$logs/$stage.log"
done
ran=("${stages[@]/#/$logs/}")
read -r passed failed < <(counted "${ran[@]/%/.log}")
failed=$((failed + broken))
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
