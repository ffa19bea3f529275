# shellcheck shell=bash
# Sourced: folders with packages of one of Debian's suites, and commands that run in them. Nothing is installed on this
# machine. Needs root.

# debian_root NAME SUITE VARIANT ARCHITECTURES PACKAGE...: prints the path of a folder with these packages, fetched once, by
# mmdebstrap, into the cache.
debian_root() {
    local name=$1 suite=$2 variant=$3 architectures=$4 folder
    local cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}/debian
    shift 4
    folder=$cache/$name-$(printf '%s\n' "$suite" "$variant" "$architectures" "$@" | sha256sum | cut -c1-16)
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

# The Debian packages that build static binaries for amd64 and arm64, and BPF objects, on an amd64 machine.
rust_packages=(cargo rustc libstd-rust-dev:arm64 gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev:arm64 clang-19 libbpf-dev)

# rust_root: prints the path of a folder with Debian sid's Rust, which has standard libraries for both architectures.
rust_root() { debian_root build sid essential amd64,arm64 "${rust_packages[@]}"; }

# in_rust_root SOURCES TARGET COMMAND: runs a shell command in rust_root's folder, with the sources at /src, cargo's target
# directory at /target, and the crates that were fetched before at /cargo. The paths are the same on every machine, and so are
# those that a compiler writes into binaries. There is no network, for want of a resolver. All of it is in a mount namespace
# that ends with the command.
in_rust_root() {
    local root
    root=$(rust_root) || return
    mkdir -p "$root"/{src,cargo,target} "$2"
    # shellcheck disable=SC2016 # the inner shell's own
    unshare --mount --propagation private "$BASH" -euo pipefail -c '
        mount --bind "$2" "$1/src"
        mount --bind "$3" "$1/target"
        mount --bind "$4" "$1/cargo"
        mount --bind /dev "$1/dev"
        mount -t proc proc "$1/proc"
        exec chroot "$1" env -i PATH=/usr/bin:/bin HOME=/root CARGO_HOME=/cargo CARGO_TARGET_DIR=/target CARGO_INCREMENTAL=0 \
            SOCKEYE_CLANG=clang-19 CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc sh -euc "cd /src; $5"
    ' build "$root" "$1" "$2" "${CARGO_HOME:-$HOME/.cargo}" "$3"
}
