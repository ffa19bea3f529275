#!/usr/bin/env bash
# tests/objects/rebuild.sh [RELEASE...]: writes tests/objects/built anew: some of the cases, by the compilers of
# Debian's releases. These are unpacked into target/objects (2 GB) and never installed; they run in a root directory of
# their own. Needs no root rights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/packages.sh
source tests/packages.sh

declare -A compilers=(
    [bullseye]="clang-11 gcc-bpf"
    [bookworm]="clang-14 gcc-bpf"
    [trixie]="clang-19 gcc-bpf"
    [sid]="clang-22 clang-23 gcc-bpf bpftool"
)
sources=(
    plain functions sockmap-elsewhere core core-size-of-missing-type lock-in-map padding function-without-func-info
)
work=$PWD/target/objects
libbpf=$(tests/oracle/libbpf.sh)

unpack() { # unpack RELEASE: unpacks its compilers
    local root=$work/$1 link
    [[ ! -e $root/ready ]] || return 0
    rm -rf "$root"
    mkdir -p "$work"
    # sid's release file is past its date on machines whose archive is a copy.
    mmdebstrap --variant=extract --architectures=amd64 --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='APT::Install-Recommends "false"' --include="${compilers[$1]// /,},linux-libc-dev" "$1" "$root" \
        http://deb.debian.org/debian
    # What base-files' own script would make.
    for link in bin lib lib64 sbin; do
        [[ -e $root/$link ]] || ln -s "usr/$link" "$root/$link"
    done
    mkdir -p "$root/build"
    cp -r "$libbpf/include" "$root/build"
    touch "$root/ready"
}

# within RELEASE COMMAND...: runs it in the release's root. GCC 12 orders variables by their addresses, so these don't vary.
within() {
    env -i PATH=/usr/bin:/usr/sbin setarch --addr-no-randomize unshare --map-root-user chroot "$work/$1" "${@:2}"
}

named() { # named RELEASE COMPILER: the name of the folder of its objects
    [[ $2 == gcc-bpf ]] || { echo "$2"; return; }
    echo "gcc-$(within "$1" bpf-gcc -dumpversion | cut -d. -f1)"
}

compile() { # compile RELEASE COMPILER SOURCE: writes build/out.o in the release's root
    local flags=(-O2 -w -I /build/include -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include)
    flags+=(-ffile-prefix-map=/= -pipe)
    case $2 in
    clang-*) within "$1" "$2" -target bpf -g "${flags[@]}" -c "/build/$3.bpf.c" -o /build/out.o ;;
    # GCC 10 writes no BTF, and knows no relocations against the kernel's types.
    gcc-bpf) within "$1" bpf-gcc -gbtf -mco-re "${flags[@]}" -c "/build/$3.bpf.c" -o /build/out.o ||
        within "$1" bpf-gcc "${flags[@]}" -c "/build/$3.bpf.c" -o /build/out.o ;;
    esac
}

objects() { # objects RELEASE COMPILER: all that this compiler takes
    local folder source root=$work/$1
    folder=tests/objects/built/$(named "$1" "$2")
    rm -rf "$folder"
    mkdir -p "$folder"
    for source in "${sources[@]}"; do
        cp "tests/objects/cases/$source.bpf.c" "$root/build"
        if compile "$1" "$2" "$source" 2>"$root/build/words"; then
            llvm-strip-16 -g -o "$folder/$source.bpf.o" "$root/build/out.o"
        else
            echo "$(named "$1" "$2") does not take $source: $(grep -m 1 -iE 'error|bug' "$root/build/words")"
        fi
    done
}

# The same object after bpftool's linker.
linked() {
    mkdir -p tests/objects/built/bpftool-7.8
    cp tests/objects/built/clang-22/lock-in-map.bpf.o "$work/sid/build/in.o"
    within sid bpftool gen object /build/out.o /build/in.o
    cp "$work/sid/build/out.o" tests/objects/built/bpftool-7.8/lock-in-map.bpf.o
}

need mmdebstrap:mmdebstrap llvm-strip-16:llvm-16 unshare:util-linux
(($#)) || set -- "${!compilers[@]}"
for release; do
    unpack "$release"
    for compiler in ${compilers[$release]}; do
        [[ $compiler == bpftool ]] || objects "$release" "$compiler"
    done
    [[ $release != sid ]] || linked
done
