#!/usr/bin/env bash
# Installs the Debian packages that the cluster's nodes need and that are not there.
set -euo pipefail
# shellcheck source=tests/packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/../packages.sh"
need runc:runc /usr/lib/cni/bridge:containernetworking-plugins buildah:buildah /bin/busybox:busybox-static \
  bpftool:bpftool nft:nftables ip:iproute2 openssl:openssl gcc:gcc /usr/include/stdlib.h:libc6-dev
