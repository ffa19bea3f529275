# shellcheck shell=bash
# Sourced: Debian's kernels, fetched and unpacked once. apt reads the suites that have them by lists of its own, so that
# neither this machine's sources nor what is installed on it matters, and none of it needs root.

kernels_cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}/kernels

# The suites that have a series of kernels.
declare -A suites_of=([5.10]="bullseye bullseye-security" [6.1]="bookworm bookworm-security"
    [6.12]="trixie trixie-security" [7.2]=sid)

# vmlinuz SERIES [ARCHITECTURE]: the path of the newest kernel of that series for virtual machines. Kernels are kept by
# package, version and the archive's digest of it; where the archive can't be asked, the newest that was kept is taken.
vmlinuz() {
    local series=$1 architecture=${2:-amd64} package found
    for found in lists update; do
        [[ $found == lists ]] || of_suites apt-get update -qq >&2 || break
        package=$(newest)
        if [[ $package ]] && fetch "$package"; then return; fi
    done
    found=$(find "$kernels_cache" -path "*/linux-*-$series.*-$architecture""_*/vmlinuz" 2>/dev/null | sort -V | tail -n 1)
    if [[ ! $found ]]; then
        echo "no kernel $series: Debian's ${suites_of[$series]} had it, and it can't be had" >&2
        return 1
    fi
    echo "Debian's archive can't be asked for a newer kernel $series than ${found%/*}" >&2
    echo "$found"
}

# of_suites COMMAND...: a command of apt's, on the suites of $series for $architecture.
of_suites() {
    local own=$kernels_cache/apt/$series-$architecture suite archive
    mkdir -p "$own"/{sources,lists/partial,cache/archives/partial}
    # apt reads its lists anew when this changes.
    [[ -e $own/sources/suites.sources ]] || for suite in ${suites_of[$series]}; do
        archive=debian
        [[ $suite != *-security ]] || archive=debian-security
        printf '%s\n' "Types: deb" "URIs: http://deb.debian.org/$archive" "Suites: $suite" "Components: main" \
            "Architectures: $architecture" "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" ""
    done >"$own/sources/suites.sources"
    # The release files of suites that are no longer, or not yet, maintained may be past their dates.
    "$@" -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$own/sources" -o Dir::State::Lists="$own/lists" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$own/cache" -o APT::Architecture="$architecture" \
        -o APT::Architectures="$architecture" -o APT::Sandbox::User="$(id -un)" -o Acquire::Check-Valid-Until=false \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
}

# The packages are named for the kernel's version and, in one way or another, for Debian's build of it. From 7.1 on
# the image is in a package of its own, linux-binary-...
newest() {
    local name="${series//./\\.}\\.[0-9]+([-+][a-z0-9]+)?-cloud-$architecture"
    of_suites apt-cache pkgnames linux- | grep -xE "linux-binary-$name|linux-image-$name" |
        sed -E 's/linux-(binary|image)-(.*)/\2 \1/' | sort -k 1,1V -k 2,2r | tail -n 1 | sed -E 's/(.*) (.*)/linux-\2-\1/'
}

fetch() {
    local package=$1 version digest kept
    read -r version digest < <(of_suites apt-cache --no-all-versions show "$package" |
        awk '$1 == "Version:" {version = $2} $1 == "SHA256:" {print version, $2; exit}') || return
    kept=$kernels_cache/${package}_${version}_${digest:0:16}
    if [[ ! -e $kept/vmlinuz ]]; then
        echo "fetching $package $version" >&2
        rm -rf "$kept.part"
        mkdir -p "$kept.part"
        # What apt downloads it checks against the archive's signed lists.
        (cd "$kept.part" && of_suites apt-get download -qq "$package=$version" 2>/dev/null &&
            dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards '*/vmlinuz*' &&
            mv "$(find . -type f -name 'vmlinuz*')" vmlinuz && rm -rf boot usr ./*.deb) || return
        mv -T "$kept.part" "$kept"
    fi
    echo "$kept/vmlinuz"
}
