#!/usr/bin/env bash
# tests/kernels/run.sh [--kernels "GUEST..."] [TEST...]: the agent's kernel tests (agent/tests/kernel), and a real reboot, on
# Debian's kernels under emulation: the very binaries that tests/run.sh kernel runs on this machine's kernel. No root, no
# KVM, no image. A guest is named for its kernel's series; GUEST-lockdown is one whose kernel is locked down.
#
# A guest is a disk with busybox, the tests, the agent, and the tools they call with their libraries; its first process is
# `init` beside this file. What it says comes over a serial port; a guest that does not come to its end has failed. All that
# is made is in target/kernels, and one run at a time is there: what a killed one left goes with the next.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
work=$repo/target/kernels
# shellcheck source=tests/packages.sh
source "$repo/tests/packages.sh"
# shellcheck source=tests/cargo.sh
source "$repo/tests/cargo.sh"
# shellcheck source=tests/kernels/kernels.sh
source "$here/kernels.sh"
# shellcheck source=tests/kernels/tests.sh
source "$here/tests.sh"
# shellcheck source=tests/kernels/guests.sh
source "$here/guests.sh"

# Those that take long are first.
guests=(5.10 7.2 6.1 6.12 5.10-lockdown 7.2-lockdown)
if [[ ${1-} == --kernels ]]; then
    read -ra guests <<<"$2"
    shift 2
fi

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
    guest_root "$(command -v busybox)" "$@"
    # busybox's own setpriv knows less.
    for tool in bpftool nsenter runc setpriv unshare; do
        install_tool "$(realpath "$(command -v "$tool")")" "/usr/bin/$tool"
    done
    for path in $(executables); do
        case ${path##*/} in
        sockeye-agent) install_tool "$path" /sockeye-agent ;;
        *) install_tool "$path" /kernel-tests ;;
        esac
    done
}

# machine NAME: the emulator and its arguments, one a line, but for the kernel's.
# -nodefaults: no devices that nobody asks for. NVMe, since its driver is in all kernels and no module is needed.
machine() {
    printf '%s\n' qemu-system-x86_64 -accel tcg -cpu max,la57=off -m 512 -display none -nodefaults \
        -serial "file:$work/$1.console" -serial "file:$work/$1.log" -kernel "$work/$1.vmlinuz" \
        -drive "file=$work/$1.disk,if=none,id=disk,format=raw,cache=unsafe" -device nvme,drive=disk,serial=disk
}

run_guests amd64 ttyS0 /dev/ttyS1 "$@"
