# shellcheck shell=bash
# What the scripts of the local cluster share: where things are, and how they speak.

cluster_src=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$cluster_src/../.." && pwd)
cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# The version of a module as its go.mod pins it: pinned kubernetes k8s.io/kubernetes
pinned() { awk -v m="$2" '$1 == "require" && $2 == m {print $3; exit} $1 == m {print $2; exit}' "$cluster_src/tools/$1/go.mod"; }

# The directory of a module's built tools, named by all that they are made from.
tools_dir() {
  local key
  key=$({ cat "$cluster_src/tools/$1/go.mod" "$cluster_src/tools/$1/go.sum" "$cluster_src/build-tools.sh"; go version; } | sha256sum | cut -c1-16)
  printf '%s/tools/%s-%s' "$cache" "$1" "$key"
}
