# shellcheck shell=bash
# Sourced: where cgroup v2 is mounted on this machine; nothing where it is not.

cgroup2_mount() { awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts; }
