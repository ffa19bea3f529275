#!/usr/bin/env bash
# node-mounts.sh DIR CGROUP: runs in a node's new mount namespace, makes its mounts, and stays to hold it.
set -euo pipefail
dir=$1 cgroup=$2
for at in /var/lib /var/log; do mount -t tmpfs -o mode=755 node "$at"; done
# The node has a new /run, with the cluster's directory and the network namespaces mounted in it.
mount -t tmpfs -o mode=755 node /mnt
mkdir -p /mnt/sockeye-cluster /mnt/mount
mount --rbind /run/sockeye-cluster /mnt/sockeye-cluster
mount --move /mnt /run
mkdir -p /run/netns /run/sockeye/cgroup /run/lock
# All nodes share this machine's cgroup tree: an agent sees its node's part of it.
mount --bind "$cgroup" /run/sockeye/cgroup
if mountpoint -q /sys/fs/bpf; then umount /sys/fs/bpf; fi
mount -t bpf bpf /sys/fs/bpf
# Pods with HostToContainer mounts see later mounts.
mount --make-rshared /
touch "$dir/mounted"
exec sleep infinity
