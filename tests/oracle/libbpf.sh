#!/usr/bin/env bash
# tests/oracle/libbpf.sh: fetches Debian's libbpf by its digest, unpacks it into the cache, and prints the folder,
# which has lib/*/libbpf.a and include/bpf. Nothing is installed.
#
# The archive, not the shared library: Debian built that for a glibc that Debian 12 does not have, and only an
# archive's calls can be redirected one by one, by the linker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/oracle/debian.sh
source tests/oracle/debian.sh

version=1.7.0-1
arch=$(dpkg --print-architecture)
declare -A digests=(
    [amd64]=af4fb0faa65925707de8607aa580d466c9326b99e5f484f080bda2032979fd13
)
[[ ${digests[$arch]-} ]] || { echo "no digest of libbpf $version for $arch is known" >&2; exit 1; }
unpacked "pool/main/libb/libbpf/libbpf-dev_${version}_$arch.deb" "${digests[$arch]}" --strip-components=2 \
    --wildcards "./usr/lib/*/libbpf.a" ./usr/include
