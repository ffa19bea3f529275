#!/usr/bin/env bash
# tests/oracle/kernel.sh TABLE: prints a folder with the files of a kernel that Debian builds: vmlinuz, btf (its BTF)
# and config. TABLE is the name of the kernel's table. Nothing is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/oracle/debian.sh
source tests/oracle/debian.sh

declare -A releases=(
    [5.10]=bullseye/amd64 [6.1]=bookworm/amd64 [6.12]=trixie/amd64 [6.12-agent]=trixie/amd64 [6.12-arm64]=trixie/arm64
    [7.2]=sid/amd64
)
release=${releases[$1]-}
[[ $release ]] || { echo "no kernel $1; there are: ${!releases[*]}" >&2; exit 1; }

current=$oracle_cache/kernels/$1
# Debian is asked for a newer one at most once a day.
if [[ $(find "$current" -mmin -1440 2>/dev/null) ]] || ! update_lists "$release"; then
    realpath -e "$current"
    exit
fi

depends() { # depends PACKAGE PATTERN: the name of a package that it depends on
    release_apt "$release" apt-cache depends "$1" | sed -nE "s/^ +Depends: ($2)\$/\1/p"
}

image=$(depends "linux-image-cloud-${release#*/}" 'linux-image-[0-9].*')
# sid has the kernel and its configuration in packages of their own.
binary=$(depends "$image" 'linux-binary-[0-9].*')
base=$(depends "$image" 'linux-base-[0-9].*')
unpacked=$(release_package "$release" "${binary:-$image}" "--exclude=*.ko*")
kernel=$oracle_cache/kernels/${binary:-$image}-${unpacked##*/}
if [[ ! -e $kernel ]]; then
    part=$kernel.part.$$
    mkdir -p "$part"
    find "$unpacked" -name 'vmlinuz*' -exec cp {} "$part/vmlinuz" \;
    /usr/bin/python3 tests/oracle/extract_btf.py "$part/vmlinuz" >"$part/btf"
    config_of=$unpacked
    [[ ! $base ]] || config_of=$(release_package "$release" "$base" "--exclude=*.ko*")
    find "$config_of" -name 'config*' -exec cp {} "$part/config" \;
    mv -T "$part" "$kernel" 2>/dev/null || rm -rf "$part"
fi
ln -sfn "$kernel" "$current"
echo "$kernel"
