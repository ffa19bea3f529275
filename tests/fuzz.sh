#!/usr/bin/env bash
# tests/fuzz.sh SECONDS: fuzzes the ELF reader and the linker, guided by coverage (ebpf/fuzz). Fails if an input ends the process, takes more
# than a second, or allocates more than 64 MiB at once; such inputs are in target/fuzz/artifacts.
#
# The flags are cargo-fuzz's, which is not needed. AddressSanitizer needs an unstable flag of rustc. SOCKEYE_FUZZ_SANITIZER=none does without, and is faster.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/packages.sh
source tests/packages.sh

seconds=${1:?usage: tests/fuzz.sh SECONDS}
sanitizer=${SOCKEYE_FUZZ_SANITIZER:-address}
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
    echo "!! NOT FUZZED: the fuzz target does not build with this toolchain; SOCKEYE_FUZZ_SANITIZER=none needs less of it" >&2
    exit 1
fi

mkdir -p target/fuzz/corpus target/fuzz/artifacts
# New inputs go to the first folder; the committed corpus is only read.
export ASAN_OPTIONS=quarantine_size_mb=8:detect_leaks=0
bounds=(-timeout=1 -malloc_limit_mb=64 -rss_limit_mb=1024)
object=target/fuzz/$sanitizer/$target/release/object
end=$((SECONDS + seconds))
while left=$((end - SECONDS)) && ((left > 0)); do
    code=0
    "$object" -max_total_time="$left" "${bounds[@]}" -max_len=65536 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix=target/fuzz/artifacts/ target/fuzz/corpus ebpf/fuzz/corpus/object "${@:2}" || code=$?
    ((code == 70)) || exit "$code"
    # libFuzzer measures wall-clock time, which a machine that stood still inflates: only inputs that are slow again count.
    for slow in target/fuzz/artifacts/timeout-*; do
        "$object" "${bounds[@]}" "$slow"
        rm "$slow"
    done
done
