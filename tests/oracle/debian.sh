# shellcheck shell=bash
# Sourced: packages of all of Debian's releases, unpacked into a cache and never installed.

oracle_cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}/oracle
archive=http://deb.debian.org/debian
# It has every file that the archive ever had.
snapshot=http://snapshot.debian.org/archive/debian/20261115T000000Z

# unpacked PATH SHA256 [OPTION OF TAR...]: prints the folder that has a package's content. PATH is the package's in the
# archive.
unpacked() {
    local path=$1 digest=$2 from kept part
    shift 2
    kept=$oracle_cache/${digest:0:16}
    # Of this subshell: several may want the same package.
    part=$kept.part.$BASHPID
    if [[ ! -e $kept ]]; then
        mkdir -p "$part"
        for from in "$archive" "$snapshot"; do
            echo "fetching $from/$path" >&2
            # apt's own transport, which verifies the digest.
            if /usr/lib/apt/apt-helper -o APT::Sandbox::User=root \
                download-file "$from/$path" "$part.deb" "SHA256:$digest" >&2; then
                dpkg-deb --fsys-tarfile "$part.deb" | tar -x -C "$part" "$@"
                mv -T "$part" "$kept" 2>/dev/null || true
                break
            fi
        done
        rm -rf "$part" "$part.deb"
    fi
    [[ -e $kept ]] || { echo "$path with digest $digest can't be had from the archive or its snapshots" >&2; return 1; }
    echo "$kept"
}

# release_apt RELEASE/ARCHITECTURE COMMAND...: apt with lists of its own, of one release of Debian.
release_apt() {
    local apt=$oracle_cache/apt/$1 command=$2 arch=${1#*/}
    shift 2
    "$command" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o Dir::State::status=/dev/null \
        -o APT::Sandbox::User=root -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

# update_lists RELEASE/ARCHITECTURE: asks the archive at most once a day. Where it can't be asked, the lists of before
# are taken.
update_lists() {
    local apt=$oracle_cache/apt/$1 lock
    mkdir -p "$apt"/{lists,cache}
    # Two stages may want the same lists: apt fails where another one updates them.
    exec {lock}>"$apt/lock"
    flock "$lock"
    update_old_lists "$1" || { exec {lock}>&-; return 1; }
    exec {lock}>&-
}

update_old_lists() {
    local apt=$oracle_cache/apt/$1
    [[ ! $(find "$apt/updated" -mmin -1440 2>/dev/null) ]] || return 0
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive ${1%/*} main" >"$apt/sources.list"
    if release_apt "$1" apt-get update -qq >&2; then
        touch "$apt/updated"
    else
        echo "Debian's archive can't be asked for its packages of $1" >&2
        [[ -e $apt/updated ]]
    fi
}

# release_package RELEASE/ARCHITECTURE PACKAGE [OPTION OF TAR...]: the same as `unpacked`, for the newest of that name
# in a release.
release_package() {
    local release=$1 package=$2 path digest
    shift 2
    update_lists "$release" || return
    read -r path digest < <(release_apt "$release" apt-cache --no-all-versions show "$package" |
        awk '$1 == "Filename:" {path = $2} $1 == "SHA256:" {digest = $2} END {print path, digest}')
    [[ ${digest-} ]] || { echo "Debian's $release has no package $package" >&2; return 1; }
    unpacked "$path" "$digest" "$@"
}
