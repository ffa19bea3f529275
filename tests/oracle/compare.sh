#!/usr/bin/env bash
# tests/oracle/compare.sh: compares what libbpf and sockeye's linker load, for the objects in tests/objects,
# ebpf/programs and deploy/examples, and for generated programs: 50, with SOCKEYE_CHAOS=1 a thousand. Needs no
# privilege.
#
# SOCKEYE_SEEDS names the seeds instead; SOCKEYE_PLAN another program than the linker's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/cargo.sh
source tests/cargo.sh

seeds=${SOCKEYE_SEEDS:-$(seq "$([[ ${SOCKEYE_CHAOS-} ]] && echo 1000 || echo 50)")}
work=$PWD/target/oracle/objects
rm -rf "$work"
mkdir -p "$work"/{seeds,cases,examples,fixtures,damaged}

record=$(tests/oracle/build.sh record)
plan=${SOCKEYE_PLAN:-$(cargo build --locked --workspace --features "$test_features" --bin plan --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')}

# Where a kernel's types can't be had, its table is left out, and that is said.
for table in 5.10 6.1 6.12 6.12-agent 6.12-arm64 7.2; do
    if kernel=$(tests/oracle/kernel.sh "$table"); then
        echo "$table $kernel/btf"
    else
        echo "SKIPPED: all comparisons for the kernel $table, which can't be had" >&2
    fi
done >"$work/kernels"
here=$(awk '/^release/ {print $2}' tests/oracle/tables/here)
[[ $(uname -r) != "$here"* ]] || echo here /sys/kernel/btf/vmlinux >>"$work/kernels"

# shellcheck disable=SC2086 # several seeds
/usr/bin/python3 tests/oracle/generate.py "$work/seeds" $seeds
tests/objects/compile.sh "$work/seeds" "$work"/seeds/*.bpf.c
tests/objects/compile.sh "$work/cases" tests/objects/cases/*.bpf.c
find ebpf/programs -name '*.bpf.c' -print0 | xargs -0 tests/objects/compile.sh "$work/fixtures"
# The objects in examples are stripped.
for example in deploy/examples/types/*.yaml; do
    sed -n 's/^ *inline: //p' "$example" | base64 -d >"$work/examples/$(basename "$example" .yaml).o"
done

# Each object with the programs and settings that its source names.
items=()
read -r table btf <"$work/kernels"
add() { # add OBJECT [SOURCE]
    items+=("$1 $([[ ! ${2-} ]] || sed -n 's#^// \(programs\|settings\): ##p' "$2" | tr '\n' ' ')")
}
for object in "$work"/examples/*.o "$work"/fixtures/*.o; do
    add "$object"
    # Each program alone, too.
    while read -r program; do
        items+=("$object $program")
    done < <("$record" "$object" "tests/oracle/tables/$table" "$btf" | sed -n 's/^prog //p')
done
for object in "$work"/cases/*.o; do add "$object" "tests/objects/cases/$(basename "$object" .o).c"; done
for object in "$work"/seeds/*.o; do add "$object" "${object%.o}.c"; done
for object in tests/objects/built/*/*.o; do
    [[ ! -e $object ]] || add "$object" "tests/objects/cases/$(basename "$object" .o).c"
done
# The first has neither maps nor externs, the second maps, the third relocations.
damaged=("$work"/cases/{license-none,plain,core}.bpf.o)
/usr/bin/python3 tests/oracle/damage.py "$work/damaged" "${damaged[@]}" >"$work/damaged/list"
while read -r object original; do
    add "$object" "tests/objects/cases/$(basename "$original" .o).c"
done <"$work/damaged/list"

# The comparison itself.
texts=()
for case in plain kconfig two-statics lock-in-data; do
    programs=$(sed -n 's|^// programs: ||p' "tests/objects/cases/$case.bpf.c")
    # shellcheck disable=SC2086 # several programs
    "$record" "$work/cases/$case.bpf.o" "tests/oracle/tables/$table" "$btf" $programs >"$work/$case.text"
    texts+=("$work/$case.text")
done
/usr/bin/python3 tests/oracle/self_test.py "${texts[@]}"

echo "comparing ${#items[@]} objects for $(wc -l <"$work/kernels") kernels"
/usr/bin/python3 tests/oracle/compare.py "$record" "$plan" "$work/kernels" "${items[@]}"
