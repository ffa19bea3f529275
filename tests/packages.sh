# shellcheck shell=bash
# Sourced: installs missing Debian packages and cargo tools on demand.

PATH=$PATH:/usr/sbin:/sbin

# need THING:PACKAGE...: prints and installs the packages whose THING is missing: a command, or a file if it begins with /.
need() {
    local pair missing=()
    for pair; do
        case $pair in
        /*) [[ -e ${pair%%:*} ]] ;;
        *) command -v "${pair%%:*}" >/dev/null ;;
        esac || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        echo "missing, and this is no Debian to install them on: ${missing[*]}" >&2
        return 1
    fi
    echo "installing Debian packages: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# as_root COMMAND...: runs a command as root, by sudo if needed.
as_root() {
    if ((EUID == 0)); then "$@"; else sudo --preserve-env "$@"; fi
}

# cargo_tool NAME VERSION: prints the path of a subcommand of cargo, and builds it once if PATH does not have it.
cargo_tool() {
    local name=$1 version=$2 cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}/cargo tool
    tool=$(command -v "$name" || echo "$cache/bin/$name")
    if [[ ! -x $tool ]]; then
        echo "building $name $version (a few minutes, once)" >&2
        # The build is deleted afterwards, so that it takes no space in the workspace's target directory.
        CARGO_TARGET_DIR=$cache/build RUSTFLAGS='' cargo install --quiet --locked --root "$cache" "$name@$version" || return
        rm -rf "$cache/build"
    fi
    echo "$tool"
}

# go_tool FOLDER NAME WHAT: prints the path of the program in a folder's main.go, and builds it once for each content of its
# sources.
go_tool() {
    local cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye} key tool
    key=$({ cat "$1"/{main.go,go.mod,go.sum}; go version; } | sha256sum | cut -c1-16)
    tool=$cache/tools/${1##*/}-$key/$2
    if [[ ! -x $tool ]]; then
        echo "building $3 (once; a minute)" >&2
        mkdir -p "${tool%/*}"
        (cd "$1" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$tool.$$" .) || return
        mv -f "$tool.$$" "$tool"
    fi
    echo "$tool"
}
