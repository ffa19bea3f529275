#!/usr/bin/env bash
# tests/kernels/run.sh [TEST...]: the agent's kernel tests (agent/tests/kernel), and a real reboot, on Debian's 6.1 and 6.12
# under emulation: the very binaries that tests/run.sh kernel runs on this machine's kernel. No root, no KVM, no image.
#
# A guest is a disk with busybox, the tests, the agent, and the tools they call with their libraries; its first process is
# `init` beside this file. What it says comes over a serial port; a guest that does not come to its end has failed. All that
# is made is in target/kernels, and one run at a time is there: what a killed one left goes with the next.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=tests/packages.sh
source "$repo/tests/packages.sh"
# shellcheck source=tests/cargo.sh
source "$repo/tests/cargo.sh"
# shellcheck source=tests/kernels/kernels.sh
source "$here/kernels.sh"

# shellcheck source=tests/kernels/tests.sh
source "$here/tests.sh"

series=(6.1 6.12)
work=$repo/target/kernels
# A guest that takes longer than so many seconds is ended.
limit=900

# Prints the paths of the tests and the agent, built as the stage `kernel` builds them.
executables() {
    cargo test --locked --workspace --features "$test_features" --test kernel --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# install_tool PATH [AS]: a program of this machine with the libraries it asks for; stripped, since the disk is read slowly.
install_tool() {
    local library
    install -D "$1" "$work/root${2:-$1}"
    strip "$work/root${2:-$1}" 2>/dev/null || true
    for library in $(ldd "$1" | grep -o '/[^ ]*'); do
        [[ -e $work/root$library ]] || install -D "$library" "$work/root$library"
    done
}

# The guest's files.
root() {
    local tool path
    mkdir -p "$work/root"/{bin,proc,sys,dev,tmp,mnt}
    for tool in $(busybox --list); do ln -sf busybox "$work/root/bin/$tool"; done
    cp --remove-destination "$(command -v busybox)" "$work/root/bin/busybox"
    install "$here/init" "$work/root/init"
    # busybox's own setpriv knows less.
    for tool in bpftool nsenter setpriv unshare; do
        install_tool "$(realpath "$(command -v "$tool")")" "/usr/bin/$tool"
    done
    # Without any, an agent takes no API server's word, be it plain HTTP.
    install -D /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
    for path in $(executables); do
        case ${path##*/} in
        sockeye-agent) install_tool "$path" /sockeye-agent ;;
        *) install_tool "$path" /kernel-tests ;;
        esac
    done
    # SOCKEYE_CHAOS=1 runs all that emulation has time for.
    (($#)) || [[ ${SOCKEYE_CHAOS-} ]] || set -- "${kernel_dependent[@]}"
    echo "$*" "${too_slow[@]/#/--skip=}" >"$work/root/tests"
}

# guest SERIES: boots it, and waits until it has powered off.
guest() {
    local kernel log=$work/$1
    kernel=$(vmlinuz "$1")
    mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d "$work/root" "$log.disk" 256M >/dev/null
    # -nodefaults: no devices that nobody asks for. NVMe, since its driver is in both kernels and no module is needed.
    setpriv --pdeathsig TERM timeout --kill-after=5 "$limit" qemu-system-x86_64 -accel tcg -cpu max,la57=off -m 512 \
        -display none -nodefaults -serial "file:$log.console" -serial "file:$log.log" \
        -kernel "$kernel" -append "console=ttyS0 quiet mitigations=off panic=-1 root=/dev/nvme0n1 rw init=/init cgroup_no_v1=all" \
        -drive "file=$log.disk,if=none,id=disk,format=raw,cache=unsafe" -device nvme,drive=disk,serial=disk &
    echo $! >"$log.pid"
    wait $! || echo "qemu ended with $? (124: after $limit s)" >>"$log.console"
    rm -f "$log.disk" "$log.pid"
}

# What a killed run left: guests, told by the disk they run from, and files.
sweep() {
    local pid
    while read -r pid; do
        if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "file=$work/"; then kill "$pid"; fi
    done < <(cat "$work"/*.pid 2>/dev/null)
    rm -rf "$work"
    mkdir -p "$work"
}

mkdir -p "$repo/target"
exec 9>"$repo/target/kernels.lock"
flock --nonblock 9 || { echo "another run is on its way here" >&2; exit 1; }
sweep
root "$@"
echo "booting ${series[*]} side by side"
guests=()
for version in "${series[@]}"; do
    guest "$version" 9>&- &
    guests+=($!)
done
wait "${guests[@]}"

status=0
for version in "${series[@]}"; do
    echo "== $version"
    tr -d '\r' <"$work/$version.log" || true
    if ! tail -n 1 "$work/$version.log" 2>/dev/null | grep -q '^== end'; then
        echo "the guest with $version did not come to its end; its kernel's last words:"
        tail -n 20 "$work/$version.console" || true
        status=1
    fi
    ! grep -q '^test result: FAILED' "$work/$version.log" || status=1
    # A runner that ends without a result has failed, and so has a reset that nobody came to.
    for boot in '/^== kernel/,/^== reboot/' '/^== booted again/,/^== end/'; do
        if ! sed -n "${boot}p" "$work/$version.log" 2>/dev/null | grep '^test result: ok. [1-9]' >/dev/null; then
            echo "the guest with $version has no result of the tests between ${boot//\//}"
            status=1
        fi
    done
done
rm -rf "$work/root"
exit "$status"
