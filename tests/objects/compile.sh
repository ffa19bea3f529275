#!/usr/bin/env bash
# tests/objects/compile.sh FOLDER SOURCE...: compiles BPF programs into a folder, side by side: NAME.bpf.c to
# NAME.bpf.o.
#
# In a source, a line `// flags: ...` gives other flags, and a line `// compiler: NAME` says that it wants another
# compiler than clang-16: such a source is left out here, and built/ has its object. NAME.part.c is linked to
# NAME.bpf.c.
set -euo pipefail

compile() { # compile SOURCE OBJECT
    local flags
    flags=$(sed -n 's|^// flags: ||p' "$1")
    # shellcheck disable=SC2086 # several flags
    clang-16 -target bpf -g -w ${flags:--O2 -mcpu=v3} -ffile-compilation-dir=. -fdebug-prefix-map=/= \
        -I "$LIBBPF/include" -I "/usr/include/$(uname -m)-linux-gnu" -c "$1" -o "$2"
}

# one FOLDER SOURCE: compiles and links one object.
one() {
    local name=${2##*/}
    name=${name%.bpf.c}
    ! grep -q '^// compiler: ' "$2" || return 0
    compile "$2" "$1/$name.bpf.o"
    if [[ -e ${2%.bpf.c}.part.c ]]; then
        compile "${2%.bpf.c}.part.c" "$1/$name.part.o"
        bpftool gen object "$1/$name.linked.o" "$1/$name.bpf.o" "$1/$name.part.o"
        mv "$1/$name.linked.o" "$1/$name.bpf.o"
        rm "$1/$name.part.o"
    fi
}

if [[ $1 == --one ]]; then
    one "$2" "$3"
    exit
fi
PATH=$PATH:/usr/sbin
LIBBPF=$("$(dirname "${BASH_SOURCE[0]}")/../oracle/libbpf.sh")
export LIBBPF PATH
folder=$1
shift
mkdir -p "$folder"
printf '%s\0' "$@" | xargs -0 -P "$(nproc)" -n 1 "${BASH_SOURCE[0]}" --one "$folder"
