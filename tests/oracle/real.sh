#!/usr/bin/env bash
# tests/oracle/real.sh: tests the oracle itself: what libbpf passes to this machine's kernel must be what `record`
# prints without it, for all cases and fixtures that the kernel takes. Needs root, and a kernel of the release in
# tables/here. Run compare.sh before: it compiles the objects.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

here=$(awk '/^release/ {print $2}' tests/oracle/tables/here)
if ((EUID)) || [[ $(uname -r) != "$here"* ]]; then
    echo "SKIPPED: libbpf's real loads, which need root and a kernel $here" >&2
    exit 0
fi
record=$(tests/oracle/build.sh record)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
btf=/sys/kernel/btf/vmlinux
echo "here $btf" >"$work/kernels"
# It takes the linker's place in the comparison.
cat >"$work/real" <<END
#!/bin/sh
object=\$1
shift 5
exec "$record" "\$object" - $btf "\$@"
END
chmod +x "$work/real"

items=()
for object in target/oracle/objects/{cases,fixtures,examples}/*.o tests/objects/built/*/*.o; do
    source=tests/objects/cases/$(basename "$object" .o).c
    programs=$([[ ! -e $source ]] || sed -n 's|^// programs: ||p' "$source")
    # shellcheck disable=SC2086 # several programs
    if ! "$record" "$object" - "$btf" $programs | grep -q '^refused'; then items+=("$object $programs"); fi
done
echo "${#items[@]} objects are loaded into this kernel"
SOCKEYE_DIFFERENCES=$PWD/tests/oracle/differences-of-kernel \
    /usr/bin/python3 tests/oracle/compare.py "$record" "$work/real" "$work/kernels" "${items[@]}"
