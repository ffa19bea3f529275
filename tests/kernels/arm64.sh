#!/usr/bin/env bash
# tests/kernels/arm64.sh [TEST...]: what run.sh does, on Debian's 6.12 for arm64, on an emulated arm64 processor. A part of
# `make chaos`. Needs root.
#
# The tests and the agent are built on this machine, by Debian sid's Rust (tests/debian_root.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
work=$repo/target/kernels-arm64
# shellcheck source=tests/packages.sh
source "$repo/tests/packages.sh"
# shellcheck source=tests/debian_root.sh
source "$repo/tests/debian_root.sh"
# shellcheck source=tests/kernels/kernels.sh
source "$here/kernels.sh"
# shellcheck source=tests/kernels/tests.sh
source "$here/tests.sh"
# shellcheck source=tests/kernels/guests.sh
source "$here/guests.sh"

guests=(6.12-arm64)
target=aarch64-unknown-linux-gnu
tools=(base-files busybox-static bpftool mount runc util-linux)

# Prints the paths of the tests and the agent.
executables() {
    cargo fetch --locked --target "$target" --manifest-path "$repo/Cargo.toml" >&2
    in_rust_root "$repo" "$repo/target/arm64" "
        export CARGO_PROFILE_DEV_DEBUG=0 RUSTFLAGS='-C target-feature=+crt-static'
        cargo test --offline --locked --target $target -p sockeye-agent --features kernel-tests --test kernel --no-run \
            --message-format=json" |
        sed -n 's/.*"executable":"\/target\([^"]*\)".*/\1/p' | sed "s|^|$repo/target/arm64|"
}

# The guest's files.
root() {
    local tree tool path
    tree=$(debian_root tools trixie extract arm64 "${tools[@]}")
    guest_root "$tree/usr/bin/busybox" "$@"
    mkdir -p "$work/root/usr/bin"
    cp -a "$tree/usr/lib" "$work/root/usr/lib"
    ln -s usr/lib "$work/root/lib"
    # busybox's own setpriv knows less.
    for tool in sbin/bpftool bin/nsenter sbin/runc bin/setpriv bin/unshare; do
        install "$tree/usr/$tool" "$work/root/usr/bin/${tool#*/}"
    done
    for path in $(executables); do
        case ${path##*/} in
        sockeye-agent) install "$path" "$work/root/sockeye-agent" ;;
        *) install "$path" "$work/root/kernel-tests" ;;
        esac
    done
}

# machine NAME: the emulator and its arguments, one a line, but for the kernel's. The processor's default way to
# authenticate pointers takes most of the time under emulation.
machine() {
    printf '%s\n' qemu-system-aarch64 -M virt -cpu max,pauth-impdef=on -m 512 -display none -nodefaults \
        -serial "file:$work/$1.console" -chardev "file,id=tests,path=$work/$1.log" -device pci-serial,chardev=tests \
        -kernel "$work/$1.vmlinuz" \
        -drive "file=$work/$1.disk,if=none,id=disk,format=raw,cache=unsafe" -device nvme,drive=disk,serial=disk
}

((EUID == 0)) || { echo "Debian's folders can be made by root alone: run this as root" >&2; exit 1; }
run_guests arm64 ttyAMA0 /dev/ttyS0 "$@"
