#!/usr/bin/env bash
# tests/cluster/publish.sh HOST:PORT KEY FOLDER: publishes what the local cluster runs as a release is published: images for
# this machine's architecture, a chart that names them by digest, and the programs that ship with sockeye, all of it signed.
# The registry has no TLS. Prints the chart's digest; FOLDER/builtins/NAME.bundle.json are the signatures of the programs.
#
# The binaries are those of target/images (cluster.sh images): a release's own take an hour (deploy/release/release.sh).
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=deploy/release/tools.sh
source "$repo/deploy/release/tools.sh"
# shellcheck source=deploy/release/layout.sh
source "$repo/deploy/release/layout.sh"
host=$1 key=$2 out=$3
version=$(release_version)
arch=$(dpkg --print-architecture)
epoch=$(git -C "$repo" log -1 --format=%ct)
export SOURCE_DATE_EPOCH=$epoch COSIGN_PASSWORD=${COSIGN_PASSWORD:-}

image() { # image NAME USER
    local name=$1 layout=$out/sockeye-$1 digest
    layout_image "$layout" "$version-$arch" "$arch" "$2" "$repo/target/images/work/$name"
    layout_index "$layout" "$version" "$arch"
    digest=$(layout_digest "$layout" "$version")
    oras cp --no-tty --recursive --from-oci-layout "$layout:$version" --to-plain-http "$host/sockeye-$name:$version" >&2
    sign "$host/sockeye-$name@$digest" --recursive --allow-http-registry
    /usr/bin/python3 "$repo/deploy/release/values.py" "$out/chart/values.yaml" "$host" "$name" "$digest"
}

release_tools >&2
rm -rf "$out"
mkdir -p "$out/builtins"
cp -r "$repo/deploy/chart" "$out/chart"
image operator 65532:65532
image agent 0:0
helm package --destination "$out" "$out/chart" >&2
helm push --plain-http "$out/sockeye-$version.tgz" "oci://$host/charts" >"$out/pushed" 2>&1 || { cat "$out/pushed" >&2; exit 1; }
digest=$(awk '$1 == "Digest:" {print $2}' "$out/pushed")
sign "$host/charts/sockeye@$digest" --allow-http-registry
"$repo/target/images/work/operator/sockeye" builtins --output "$out/builtins" >&2
for object in "$out"/builtins/*.o; do sign_blob "$object" "${object%.o}.bundle.json"; done
echo "$digest"
