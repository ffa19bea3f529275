#!/usr/bin/env bash
# tests/fuzz.sh SECONDS: fuzzes the ELF reader, the linker and the reader of types, guided by coverage (ebpf/fuzz).
# Each target runs for its share of the time; SOCKEYE_FUZZ_TARGETS names some of them: object, types. Fails if an input
# ends the process, takes more than a second, or allocates more than 64 MiB at once; such inputs are in
# target/fuzz/artifacts.
#
# The flags are cargo-fuzz's, which is not needed. AddressSanitizer needs an unstable flag of rustc. SOCKEYE_FUZZ_SANITIZER=none does without, and is faster.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/packages.sh
source tests/packages.sh

seconds=${1:?usage: tests/fuzz.sh SECONDS}
sanitizer=${SOCKEYE_FUZZ_SANITIZER:-address}
read -ra targets <<<"${SOCKEYE_FUZZ_TARGETS:-object types}"
need clang-16:clang-16 /usr/include/bpf/bpf_helpers.h:libbpf-dev g++:g++

target=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
if [[ $sanitizer != none ]]; then
    flags+=" -Zsanitizer=$sanitizer"
    export RUSTC_BOOTSTRAP=1
fi
if ! RUSTFLAGS=$flags cargo build --locked --release --manifest-path ebpf/fuzz/Cargo.toml \
    --target "$target" --target-dir "target/fuzz/$sanitizer"; then
    echo "!! NOT FUZZED: the fuzz targets do not build with this toolchain; SOCKEYE_FUZZ_SANITIZER=none needs less of it" >&2
    exit 1
fi

export ASAN_OPTIONS=quarantine_size_mb=8:detect_leaks=0
bounds=(-timeout=1 -malloc_limit_mb=64 -rss_limit_mb=1024)

# fuzz TARGET SECONDS [OPTION...]
fuzz() {
    local binary=target/fuzz/$sanitizer/$target/release/$1
    local corpus=target/fuzz/corpus/$1 artifacts=target/fuzz/artifacts/$1
    local end=$((SECONDS + $2)) left code slow
    mkdir -p "$corpus" "$artifacts"
    while left=$((end - SECONDS)) && ((left > 0)); do
        code=0
        # New inputs go to the first folder; the committed corpus is only read.
        "$binary" -max_total_time="$left" "${bounds[@]}" -max_len=65536 -print_final_stats=1 -verbosity=1 \
            -artifact_prefix="$artifacts/" "$corpus" "ebpf/fuzz/corpus/$1" "${@:3}" || code=$?
        ((code == 70)) || return "$code"
        # libFuzzer measures wall-clock time, which a machine that stood still inflates: only inputs that are slow again
        # count.
        for slow in "$artifacts"/timeout-*; do
            "$binary" "${bounds[@]}" "$slow"
            rm "$slow"
        done
    done
}

for name in "${targets[@]}"; do
    echo "== $name"
    fuzz "$name" $((seconds / ${#targets[@]})) "${@:2}"
done
