# shellcheck shell=bash disable=SC2154 # set by who sources this
# Sourced: runs guests. Who sources this says in $guests which there are, in $work where their files are, in root() what is
# on their disks, in machine() what emulates them, and in $repo and $here where the repository and these files are.

# A guest that takes longer than so many seconds is ended.
limit=3600

# guest_root BUSYBOX [TEST...]: what every guest's disk holds, from a static busybox of its processor; in /tests are the
# filters of each guest's tests.
guest_root() {
    local tool name busybox=$1 skipped
    shift
    mkdir -p "$work/root"/{bin,proc,sys,dev,tmp,mnt}
    for tool in $(busybox --list); do ln -sf busybox "$work/root/bin/$tool"; done
    cp --remove-destination "$busybox" "$work/root/bin/busybox"
    install "$here/init" "$work/root/init"
    # Without any, an agent takes no API server's word, be it plain HTTP.
    install -D /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
    mkdir "$work/root/tests"
    for name in "${guests[@]}"; do
        skipped=("${too_slow[@]}" "${without_compiler[@]}")
        echo "${*:-$(tests_of "$name")}" "${skipped[@]/#/--skip=}" >"$work/root/tests/$name"
    done
}

# guest NAME CONSOLE PORT: boots it, and waits until it has powered off.
guest() {
    local name=$1 log=$work/$1 started=$SECONDS emulator arguments
    mapfile -t emulator < <(machine "$name")
    arguments="console=$2 quiet mitigations=off panic=-1 root=/dev/nvme0n1 rw init=/init cgroup_no_v1=all port=$3 guest=$name"
    [[ $name != *-lockdown ]] || arguments+=" lockdown=confidentiality"
    # The kernel hands this to init: tests that imitate other kernels by faults do so in the long form alone.
    [[ ${SOCKEYE_CHAOS-} ]] || arguments+=" SOCKEYE_OWN_KERNEL=1"
    mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d "$work/root" "$log.disk" 256M >/dev/null
    setpriv --pdeathsig TERM timeout --kill-after=5 "$limit" "${emulator[@]}" -append "$arguments" &
    echo $! >"$log.pid"
    wait $! || echo "qemu ended with $? (124: after $limit s)" >>"$log.console"
    rm -f "$log.disk" "$log.pid"
    echo "the guest with $name took $((SECONDS - started)) s"
}

# What a killed run left: guests, told by the disk they run from, and files.
sweep() {
    local pid
    while read -r pid; do
        if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "file=$work/"; then kill "$pid"; fi
    done < <(cat "$work"/*.pid 2>/dev/null)
    rm -rf "$work"
    mkdir -p "$work"
}

# has_passed NAME: whether the guest has come to its end, and all its tests passed.
has_passed() {
    local log=$work/$1.log passed=0 boot boots=('/^== kernel/,/^== reboot/' '/^== booted again/,/^== end/')
    [[ $1 != *-lockdown ]] || boots=('/^== kernel/,/^== end/')
    if ! tail -n 1 "$log" 2>/dev/null | grep -q '^== end'; then
        echo "the guest with $1 did not come to its end; its kernel's last words:"
        tail -n 20 "$work/$1.console" || true
        passed=1
    fi
    ! grep -q '^test result: FAILED' "$log" || passed=1
    # A runner that ends without a result has failed, and so has a reset that nobody came to.
    for boot in "${boots[@]}"; do
        if ! sed -n "${boot}p" "$log" 2>/dev/null | grep '^test result: ok. [1-9]' >/dev/null; then
            echo "the guest with $1 has no result of the tests between ${boot//\//}"
            passed=1
        fi
    done
    return "$passed"
}

# run_guests ARCHITECTURE CONSOLE PORT [TEST...]: runs all guests, as many at once as there are processors; the kernel's
# words come over CONSOLE, the tests' over PORT. Exits with 0 if all tests passed.
run_guests() {
    local architecture=$1 console=$2 port=$3 name status=0 running=0 at_once
    shift 3
    at_once=$(nproc)
    mkdir -p "$repo/target"
    exec 9>"$work.lock"
    flock --nonblock 9 || { echo "another run is on its way here" >&2; exit 1; }
    sweep
    for name in "${guests[@]}"; do ln -s "$(vmlinuz "${name%-*}" "$architecture")" "$work/$name.vmlinuz"; done
    root "$@"
    echo "booting ${guests[*]}, $at_once at a time"
    for name in "${guests[@]}"; do
        if ((running == at_once)); then
            wait -n || true
            running=$((running - 1))
        fi
        guest "$name" "$console" "$port" 9>&- &
        running=$((running + 1))
    done
    wait
    for name in "${guests[@]}"; do
        echo "== $name"
        tr -d '\r' <"$work/$name.log" || true
        has_passed "$name" || status=1
    done
    rm -rf "$work/root"
    exit "$status"
}
