#!/usr/bin/env bash
# Runs in a node's new mount namespace, lays out its mounts, and stays to keep it: node-mounts.sh DIR CGROUP
set -euo pipefail
dir=$1 cgroup=$2
for at in /var/lib /var/log; do mount -t tmpfs -o mode=755 node "$at"; done
# The cluster's own directory and the network namespaces stay to be seen through the node's fresh /run.
mount -t tmpfs -o mode=755 node /mnt
mkdir -p /mnt/sockeye-cluster /mnt/mount
mount --rbind /run/sockeye-cluster /mnt/sockeye-cluster
mount --move /mnt /run
mkdir -p /run/netns /run/sockeye/cgroup /run/lock
# An agent is confined to its node's part of the tree that all nodes of this machine share.
mount --bind "$cgroup" /run/sockeye/cgroup
if mountpoint -q /sys/fs/bpf; then umount /sys/fs/bpf; fi
mount -t bpf bpf /sys/fs/bpf
# Pods with HostToContainer mounts follow what is mounted here from now on.
mount --make-rshared /
touch "$dir/mounted"
exec sleep infinity
