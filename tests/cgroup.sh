# shellcheck shell=bash
# Sourced: finds the mount point of cgroup v2; prints nothing if there is none.

cgroup2_mount() { awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts; }
