#!/usr/bin/env bash
# tests/kernels/arm64.sh [TEST...]: what run.sh does, on Debian's 6.12 for arm64, on an emulated arm64 processor. A part of
# `make chaos`. Needs root.
#
# The tests and the agent are built on this machine, by Debian sid's Rust, which has a standard library for arm64. It runs
# in a folder of its own, as do the tools that the guest needs: both are fetched once, by mmdebstrap, into the cache.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
work=$repo/target/kernels-arm64
# shellcheck source=tests/packages.sh
source "$repo/tests/packages.sh"
# shellcheck source=tests/kernels/kernels.sh
source "$here/kernels.sh"
# shellcheck source=tests/kernels/tests.sh
source "$here/tests.sh"
# shellcheck source=tests/kernels/guests.sh
source "$here/guests.sh"

guests=(6.12-arm64)
cache=${kernels_cache%/*}/arm64
target=aarch64-unknown-linux-gnu
compilers=(cargo rustc libstd-rust-dev:arm64 gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev:arm64 clang-19 libbpf-dev)
tools=(base-files busybox-static bpftool mount runc util-linux)

# debian NAME SUITE VARIANT ARCHITECTURES PACKAGE...: prints the path of a folder with these packages.
debian() {
    local name=$1 suite=$2 variant=$3 architectures=$4 folder
    shift 4
    folder=$cache/$name-$(printf '%s\n' "$suite" "$variant" "$@" | sha256sum | cut -c1-16)
    if [[ ! -e $folder ]]; then
        echo "fetching $* of $suite" >&2
        mkdir -p "$cache"
        rm -rf "$folder.part"
        # sid's release file may be past its date.
        mmdebstrap --quiet --mode=root --variant="$variant" --architectures="$architectures" \
            --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
            --include="$(IFS=,; echo "$*")" "$suite" "$folder.part" http://deb.debian.org/debian >&2 || return
        mv -T "$folder.part" "$folder"
    fi
    echo "$folder"
}

# Prints the paths of the tests and the agent, built in a mount namespace that ends with the build.
executables() {
    local root
    root=$(debian build sid essential amd64,arm64 "${compilers[@]}")
    mkdir -p "$root"/{src,cargo} "$repo/target"
    # Within the namespace there is no network, for want of a resolver.
    cargo fetch --locked --target "$target" --manifest-path "$repo/Cargo.toml" >&2
    # shellcheck disable=SC2016 # the inner shell's own
    unshare --mount --propagation private "$BASH" -euo pipefail -c '
        mount --bind "$2" "$1/src"
        mount --bind "$3" "$1/cargo"
        mount --bind /dev "$1/dev"
        mount -t proc proc "$1/proc"
        exec chroot "$1" env -i PATH=/usr/bin:/bin HOME=/root CARGO_HOME=/cargo CARGO_TARGET_DIR=/src/target/arm64 \
            CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 SOCKEYE_CLANG=clang-19 \
            CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
            sh -c "cd /src && cargo test --offline --locked --target $4 -p sockeye-agent --features kernel-tests \
                --test kernel --no-run --message-format=json"
    ' build "$root" "$repo" "${CARGO_HOME:-$HOME/.cargo}" "$target" |
        sed -n 's/.*"executable":"\/src\([^"]*\)".*/\1/p' | sed "s|^|$repo|"
}

# The guest's files.
root() {
    local tree tool path
    tree=$(debian tools trixie extract arm64 "${tools[@]}")
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
