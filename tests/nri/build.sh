#!/usr/bin/env bash
# Builds the runtime's half of NRI from main.go, and prints the binary's path. Builds it once for each content of its
# sources.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}
key=$({ cat main.go go.mod go.sum; go version; } | sha256sum | cut -c1-16)
built=$cache/tools/nri-$key/runtime
if [[ ! -x $built ]]; then
    echo "building the runtime's half of NRI (once; a minute)" >&2
    mkdir -p "${built%/*}"
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$built.$$" .
    mv -f "$built.$$" "$built"
fi
echo "$built"
