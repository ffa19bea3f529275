#!/usr/bin/env bash
# Runs the agent alone, without a cluster: it attaches deploy/examples/bpfprogram.yaml on this machine, connects over TCP, and
# compares the agent's report with bpftool's (tests/demo.py). Fails if they differ.
#
# Nothing stays: bpffs is mounted in the demo's own mount namespace, with which the pins end, and the node's cgroup is one
# directory, removed at the end. Other programs' connections are outside that cgroup, and are not counted.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/packages.sh
source tests/packages.sh
# shellcheck source=tests/cgroup.sh
source tests/cgroup.sh

# Runs in the mount namespace: mounts bpffs, makes a cgroup, runs the demo, and removes the cgroup.
inside() {
    local mount
    mount -t bpf bpf /sys/fs/bpf
    mount=$(cgroup2_mount)
    [[ $mount ]] || { echo "no cgroup v2 is mounted on this machine" >&2; return 1; }
    work=$(mktemp -d)
    cgroup=$(mktemp -d "$mount/sockeye-demo.XXXXXX")
    trap 'rmdir "$cgroup"; rm -rf "$work"' EXIT
    /usr/bin/python3 tests/demo.py --agent "$1" --example deploy/examples/bpfprogram.yaml --work "$work" --cgroup "$cgroup"
}

if [[ ${1-} == --inside ]]; then
    inside "$2"
    exit
fi

need clang-16:clang-16 /usr/include/bpf/bpf_helpers.h:libbpf-dev bpftool:bpftool /usr/bin/python3:python3-minimal \
    /usr/lib/python3/dist-packages/yaml/__init__.py:python3-yaml
echo "building the agent (some minutes, the first time)"
cargo build --locked --profile quick -p sockeye-agent
as_root unshare --mount --propagation private -- \
    "$BASH" tests/demo.sh --inside "${CARGO_TARGET_DIR:-target}/quick/sockeye-agent"
