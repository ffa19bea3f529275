#!/usr/bin/env bash
# Copies a release, with its signatures, SBOMs and provenance, to a registry: `make publish REGISTRY=HOST/PATH`.
#
#   REGISTRY                           where to, by default ghcr.io/sockeye-dev: what `make release` was told
#   REGISTRY_USER, REGISTRY_PASSWORD   log in first; otherwise oras is logged in already
#   REGISTRY_OPTIONS                   options of oras', such as --to-plain-http
#   GH_TOKEN                           also publish the files, as a release of the forge's, by gh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/release/tools.sh
source "$here/tools.sh"
registry=${REGISTRY:-ghcr.io/sockeye-dev}
version=$(release_version)
out=${SOCKEYE_RELEASE_OUT:-$repo/target/release-$version}
read -ra options <<<"${REGISTRY_OPTIONS:-}"

[[ -e $out/SHA256SUMS ]] || { echo "there is no release in $out: make release" >&2; exit 1; }
release_tools
[[ ! ${REGISTRY_USER:-} ]] ||
    oras login --username "$REGISTRY_USER" --password-stdin "${registry%%/*}" <<<"$REGISTRY_PASSWORD"
for name in sockeye-operator sockeye-agent charts/sockeye; do
    oras cp --no-tty --recursive "${options[@]}" --from-oci-layout "$out/$name:$version" "$registry/$name:$version"
done
[[ ! ${GH_TOKEN:-} ]] ||
    gh release create "v$version" --verify-tag --notes-file "$repo/CHANGELOG.md" "$out"/sockeye-*-* "$out"/sockeye-*.tgz \
        "$out"/sockeye.yaml "$out"/provenance.json "$out"/SHA256SUMS* "$out"/builtins/*
