# shellcheck shell=bash
# Sourced: Debian's kernels, fetched and unpacked once.

kernels_cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}/kernels

# vmlinuz SERIES: the path of the newest kernel of that series (6.1, 6.12) for virtual machines. They are kept by package,
# version and the archive's digest of it; where the archive can't be asked, the newest that was kept is taken.
vmlinuz() {
    local series=$1 package found
    for found in lists update; do
        [[ $found == lists ]] || as_root apt-get update -qq >&2 || break
        package=$(newest "$series")
        if [[ $package ]] && fetch "$package"; then return; fi
    done
    found=$(find "$kernels_cache" -path "*/linux-image-$series.*/vmlinuz" 2>/dev/null | sort -V | tail -n 1)
    [[ $found ]] || { echo "no kernel $series: Debian 12's archive has it, and it can't be had" >&2; return 1; }
    echo "Debian's archive can't be asked for a newer kernel $series than ${found%/*}" >&2
    echo "$found"
}

# The packages are named for the kernel's version and, in one way or another, for Debian's build of it.
newest() {
    apt-cache pkgnames "linux-image-$1." | grep -xE "linux-image-${1//./\\.}\\.[0-9]+([-+][a-z0-9]+)?-cloud-amd64" |
        sort -V | tail -n 1
}

fetch() {
    local package=$1 version digest kept
    read -r version digest < <(apt-cache --no-all-versions show "$package" |
        awk '$1 == "Version:" {version = $2} $1 == "SHA256:" {print version, $2; exit}') || return
    kept=$kernels_cache/${package}_${version}_${digest:0:16}
    if [[ ! -e $kept/vmlinuz ]]; then
        echo "fetching $package $version" >&2
        rm -rf "$kept.part"
        mkdir -p "$kept.part"
        # What apt downloads it checks against the archive's signed lists.
        (cd "$kept.part" && apt-get download -qq "$package=$version" 2>/dev/null &&
            dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards './boot/vmlinuz-*' &&
            mv boot/vmlinuz-* vmlinuz && rm -rf boot ./*.deb) || return
        mv -T "$kept.part" "$kept"
    fi
    echo "$kept/vmlinuz"
}
