# shellcheck shell=bash
# Sourced: Debian packages on demand.

PATH=$PATH:/usr/sbin:/sbin

# need THING:PACKAGE...: installs the packages whose THING (a command, or a file when it begins with /) is not there,
# and says which.
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

# as_root COMMAND...: through sudo where that is needed.
as_root() {
    if ((EUID == 0)); then "$@"; else sudo --preserve-env "$@"; fi
}
