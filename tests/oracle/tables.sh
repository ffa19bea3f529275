#!/usr/bin/env bash
# tests/oracle/tables.sh [--write] [TABLE...]: compares the tables with what libbpf's own probes find: on Debian's
# kernels as guests under emulation, and on this machine (`here`) as root if it runs the table's release. Guests need
# neither root nor KVM. With --write, writes the tables anew; their lines `cpus` and `ksym` stay.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

write=
[[ ${1-} != --write ]] || { write=1; shift; }
(($#)) || set -- 5.10 6.1 6.12 7.2 here
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tests/oracle/build.sh probe >/dev/null
# The kernel unpacks this as its first file system.
install -D target/oracle/probe "$work/root/init"
mkdir -p "$work/root"/{proc,sys,dev}
(cd "$work/root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initramfs"

guest() { # guest TABLE: what the probes print in a guest with this kernel
    local kernel
    kernel=$(tests/oracle/kernel.sh "$1")
    timeout --kill-after=5 120 qemu-system-x86_64 -accel tcg -cpu max,la57=off -m 256 -display none -nodefaults \
        -no-reboot -serial "file:$work/$1.console" -serial "file:$work/$1.log" \
        -kernel "$kernel/vmlinuz" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet mitigations=off panic=-1" || true
    tr -d '\r' <"$work/$1.log"
}

probed() { # probed TABLE: what the probes print, if they came to their end
    local seen
    if [[ $1 != here ]]; then
        seen=$(guest "$1")
    else
        seen=$(target/oracle/probe)
    fi
    if [[ $(tail -n 1 <<<"$seen") != "# end" ]]; then
        echo "the probes on $1 did not come to their end: $seen" >&2
        return 1
    fi
    sed '$d' <<<"$seen"
}

# The lines of a table that are checked: a kernel of the same series may have another release.
checked() {
    grep -E '^(feature|agent) ' "$1"
}

# What a program may ask of a kernel's configuration, as far as tests ask.
config() { # config TABLE
    local names='HZ|BPF_SYSCALL|CGROUP_BPF|IPV6|NR_CPUS|NET_CLS_BPF|PHYSICAL_START|LSM|DEFAULT_INIT'
    [[ $1 == here ]] || grep -E "^CONFIG_($names)=" "$(tests/oracle/kernel.sh "$1")/config" | sed 's/^/config /'
}

passed=0 failed=0
for table; do
    file=tests/oracle/tables/$table
    if [[ $table == here ]] && { ((EUID)) || [[ $(uname -r) != "$(awk '/^release/ {print $2}' "$file")"* ]]; }; then
        echo "SKIPPED: table here is not of this machine's kernel, or this is not root" >&2
        continue
    fi
    probed "$table" >"$work/$table.seen"
    if [[ $write ]]; then
        { cat "$work/$table.seen"; config "$table"; grep -E '^(cpus|ksym) ' "$file" || true; } >"$work/new"
        mv "$work/new" "$file"
    elif diff -U0 --label "table $table" --label "the kernel" <(checked "$file") <(checked "$work/$table.seen"); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done
[[ $write ]] || echo "test result: $( ((failed)) && echo FAILED || echo ok). $passed passed; $failed failed"
((failed == 0))
