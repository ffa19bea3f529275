# shellcheck shell=bash
# Sourced: packages of Debian's other releases, unpacked into a cache and never installed.

oracle_cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}/oracle
# Where the archive has moved on, the snapshots of it have every file.
archives=(http://deb.debian.org/debian http://snapshot.debian.org/archive/debian/20261115T000000Z)

# unpacked PATH SHA256 [OPTION OF TAR...]: prints the folder that has the content of a package, by its path in the archive.
unpacked() {
    local path=$1 digest=$2 archive kept
    shift 2
    kept=$oracle_cache/${digest:0:16}
    if [[ ! -e $kept ]]; then
        rm -rf "$kept".part.*
        mkdir -p "$kept.part.$$"
        for archive in "${archives[@]}"; do
            echo "fetching $archive/$path" >&2
            # apt's own transport; it verifies the digest.
            if /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "$archive/$path" "$kept.part.$$.deb" "SHA256:$digest" >&2; then
                dpkg-deb --fsys-tarfile "$kept.part.$$.deb" | tar -x -C "$kept.part.$$" --wildcards "$@"
                rm "$kept.part.$$.deb"
                mv -T "$kept.part.$$" "$kept" 2>/dev/null || rm -rf "$kept.part.$$"
                break
            fi
        done
    fi
    [[ -e $kept ]] || { echo "$path with digest $digest can't be had from: ${archives[*]}" >&2; return 1; }
    echo "$kept"
}
