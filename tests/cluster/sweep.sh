# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# Removes everything of the cluster, also what a killed run left: processes, mounts, cgroups, the network namespace.

kill_cgroup() {
  local procs pid
  [ -d "$1" ] || return 0
  while read -r procs; do
    while read -r pid; do kill -9 "$pid" 2>/dev/null || true; done <"$procs"
  done < <(find "$1" -name cgroup.procs 2>/dev/null)
}

remove_cgroup() {
  local dir tries=50
  [ -d "$1" ] || return 0
  while [ -d "$1" ] && [ $((tries -= 1)) -gt 0 ]; do
    kill_cgroup "$1"
    while read -r dir; do rmdir "$dir" 2>/dev/null || true; done < <(find "$1" -depth -type d 2>/dev/null)
    [ ! -d "$1" ] || sleep 0.1
  done
  [ ! -d "$1" ] || say "could not remove $1"
}

sweep() {
  local pid mount cgroup tries=100
  for pid in $(our_pids); do kill -9 "$pid" 2>/dev/null || true; done
  for mount in $(v1_mounts) "$(cgroup2_mount)"; do
    for cgroup in "$mount"/sockeye-node-*; do remove_cgroup "$cgroup"; done
  done
  while [ -n "$(our_pids)" ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
  net_down
  rm -rf "$run"
}

# Prints what of the cluster is still on the machine; succeeds if nothing is.
residue() {
  local found
  found=$(
    our_pids | sed 's/^/process /'
    for mount in $(v1_mounts) "$(cgroup2_mount)"; do find "$mount" -maxdepth 1 -name 'sockeye-node-*' | sed 's/^/cgroup /'; done
    ip netns list | grep -w "$netns" | sed 's/^/network namespace /'
    grep -E "$run|/run/netns/$netns" /proc/self/mounts | sed 's/^/mount /'
    [ ! -e "$run" ] || echo "directory $run"
  ) || true
  [ -z "$found" ] || { printf 'left behind:\n%s\n' "$found" >&2; return 1; }
}
