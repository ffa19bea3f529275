#!/usr/bin/env bash
# Builds a release from the commit that is checked out, without a daemon: `make release KEY=FILE`.
#
#   KEY        a private key that cosign made (cosign generate-key-pair): a file, or env://VARIABLE; its password is in
#              COSIGN_PASSWORD
#   REGISTRY   where the release will be published, as HOST/PATH: the chart names it. By default ghcr.io/sockeye-dev
#
# Writes target/release-VERSION/:
#   sockeye-operator/, sockeye-agent/   OCI layouts: an image for amd64 and arm64, its signatures, SBOMs and provenance
#   charts/sockeye/                     an OCI layout: the chart, its signature and provenance
#   sockeye-VERSION.tgz                 the same chart as a file; it names both images by digest
#   sockeye-{operator,agent}-ARCH       the binaries
#   sockeye-linux-ARCH.tar.gz           the command line, and its licence
#   sockeye.yaml                        Krew's manifest of it (kubectl krew install)
#   builtins/NAME.o, NAME.bundle.json   the programs that ship with sockeye, and a signature of each
#   NAME-ARCH.cdx.json, provenance.json what was built from what
#   SHA256SUMS, SHA256SUMS.bundle.json  the digests of all these files and layouts, and their signature
#
# Two builds of a commit are the same but for the signatures. Needs root, for the folder in which the compilers run, and no
# network but for what is fetched once. publish.sh copies it to a registry.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=tests/packages.sh
source "$repo/tests/packages.sh"
# shellcheck source=tests/debian_root.sh
source "$repo/tests/debian_root.sh"
# shellcheck source=deploy/release/tools.sh
source "$here/tools.sh"
# shellcheck source=deploy/release/layout.sh
source "$here/layout.sh"

# The builder's modes, time zone and language are nobody's business.
umask 022
export TZ=UTC LC_ALL=C

architectures=(amd64 arm64)
declare -A target_of=([amd64]=x86_64-unknown-linux-gnu [arm64]=aarch64-unknown-linux-gnu)
key=${KEY:-}
registry=${REGISTRY:-ghcr.io/sockeye-dev}
version=$(release_version)
work=${SOCKEYE_RELEASE_WORK:-$repo/target/release-work}
out=${SOCKEYE_RELEASE_OUT:-$repo/target/release-$version}

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# What is released is a commit, and nothing that only this checkout has.
sources() {
    [[ ! $(git -C "$repo" status --porcelain) ]] || die "the checkout has changes that are not committed"
    rm -rf "$work/sources"
    mkdir -p "$work/sources"
    git -C "$repo" archive HEAD | tar -x -C "$work/sources"
}

# Builds binaries of both architectures by one compiler, and writes the builtin programs of the first.
binaries() {
    local arch flags
    # The crates' folder has another name on each machine: it depends on where they were fetched from.
    flags='-C target-feature=+crt-static'
    for arch in "${architectures[@]}"; do
        say "building for $arch"
        cargo fetch --locked --quiet --target "${target_of[$arch]}" --manifest-path "$work/sources/Cargo.toml"
        in_rust_root "$work/sources" "$work/target" "
            flags='$flags'
            for crates in /cargo/registry/src/*; do flags=\"\$flags --remap-path-prefix=\$crates=/crates\"; done
            export RUSTFLAGS=\"\$flags\" CARGO_PROFILE_RELEASE_LTO=${SOCKEYE_RELEASE_LTO:-thin}
            cargo build --quiet --offline --locked --release --target ${target_of[$arch]} \
                -p sockeye-operator -p sockeye-agent -p sockeye-cli"
        for name in operator agent; do
            install -D "$work/target/${target_of[$arch]}/release/sockeye-$name" "$out/sockeye-$name-$arch"
        done
    done
    mkdir -p "$out/builtins"
    "$out/sockeye-operator-amd64" builtins --output "$out/builtins"
}

# The SBOMs say which C library is linked in: the one of the folder in which the compilers run.
sboms() {
    local root libc
    root=$(rust_root)
    libc=$(dpkg-query --admindir "$root/var/lib/dpkg" -W -f '${Version}' libc6-dev:amd64)
    for arch in "${architectures[@]}"; do
        SBOM_TARGET=${target_of[$arch]} SBOM_LIBC=$libc SBOM_OUT=$work/sbom-$arch "$work/sources/deploy/sbom.sh"
        for name in operator agent; do cp "$work/sbom-$arch/$name.json" "$out/sockeye-$name-$arch.cdx.json"; done
        cp "$work/sbom-$arch/cli.json" "$out/sockeye-linux-$arch.cdx.json"
    done
}

# The command line, one archive an architecture, and the manifest by which Krew installs them.
command_line() {
    local arch folder
    for arch in "${architectures[@]}"; do
        folder=$work/command-line-$arch
        install -D "$work/target/${target_of[$arch]}/release/sockeye" "$folder/sockeye"
        install -m 644 "$work/sources/LICENSE" "$folder/LICENSE"
        tar_of "$folder" | gzip -n -9 >"$out/sockeye-linux-$arch.tar.gz"
    done
    /usr/bin/python3 "$here/krew.py" "$version" "https://github.com/sockeye-dev/sockeye/releases/download/v$version" \
        "$out"/sockeye-linux-*.tar.gz >"$out/sockeye.yaml"
}

images() {
    local name arch user
    for name in operator agent; do
        # The agent is uid 0; its pod drops every capability but three.
        user=65532:65532
        [[ $name == operator ]] || user=0:0
        for arch in "${architectures[@]}"; do
            mkdir -p "$work/image-$name-$arch"
            install "$out/sockeye-$name-$arch" "$work/image-$name-$arch/sockeye"
            install -m 644 "$out/sockeye-$name-$arch.cdx.json" "$work/image-$name-$arch/sbom.json"
            layout_image "$out/sockeye-$name" "$version-$arch" "$arch" "$user" "$work/image-$name-$arch"
        done
        layout_index "$out/sockeye-$name" "$version" "${architectures[@]}"
        say "sockeye-$name:$version is $(layout_digest "$out/sockeye-$name" "$version")"
    done
}

# The chart names the registry, and both images by their digests.
chart() {
    local chart=$work/chart/sockeye name digest
    rm -rf "$work/chart"
    mkdir -p "$work/chart"
    cp -r "$work/sources/deploy/chart" "$chart"
    cp "$work/sbom-amd64/chart.json" "$chart/sbom.json"
    for name in operator agent; do
        digest=$(layout_digest "$out/sockeye-$name" "$version")
        /usr/bin/python3 "$here/values.py" "$chart/values.yaml" "$registry" "$name" "$digest"
    done
    helm package --destination "$out" "$chart" >/dev/null
    # What helm pushes has the time of the file.
    touch --date "@$epoch" "$out/sockeye-$version.tgz"
}

provenance() {
    /usr/bin/python3 "$here/provenance.py" "$work/sources" "$(git -C "$repo" rev-parse HEAD)" "$version" "$registry" \
        "$(rust_root)" >"$out/provenance.json"
}

# Signatures and attestations are made on a registry, since cosign signs nothing else, and then copied beside what they are
# about.
signed() {
    local name digest host
    start_registry "$work/registry"
    host=$registry_host
    for name in sockeye-operator sockeye-agent; do
        digest=$(layout_digest "$out/$name" "$version")
        oras cp --recursive --from-oci-layout "$out/$name:$version" --to-plain-http "$host/$name:$version" >/dev/null
        sign "$host/$name@$digest" --recursive
        attest "$host/$name@$digest" slsaprovenance1 "$out/provenance.json"
        for arch in "${architectures[@]}"; do
            attest "$host/$name@$(layout_digest "$out/$name" "$version-$arch")" cyclonedx "$out/$name-$arch.cdx.json"
        done
        oras cp --recursive --from-plain-http "$host/$name:$version" --to-oci-layout "$out/$name:$version" >/dev/null
    done
    helm push --plain-http "$out/sockeye-$version.tgz" "oci://$host/charts" >"$work/pushed" 2>&1
    digest=$(awk '$1 == "Digest:" {print $2}' "$work/pushed")
    sign "$host/charts/sockeye@$digest"
    attest "$host/charts/sockeye@$digest" slsaprovenance1 "$out/provenance.json"
    mkdir -p "$out/charts"
    oras cp --recursive --from-plain-http "$host/charts/sockeye:$version" --to-oci-layout "$out/charts/sockeye:$version" \
        >/dev/null
    for name in "$out"/builtins/*.o; do sign_blob "$name" "${name%.o}.bundle.json"; done
}

checksums() {
    {
        for name in sockeye-operator sockeye-agent charts/sockeye; do
            printf '%s  %s:%s\n' "$(layout_digest "$out/$name" "$version" | cut -d: -f2)" "$name" "$version"
        done
        (cd "$out" && sha256sum -- sockeye-*-* sockeye-*.tgz sockeye.yaml provenance.json builtins/*.o)
    } >"$work/SHA256SUMS"
    install -m 644 "$work/SHA256SUMS" "$out/SHA256SUMS"
    sign_blob "$out/SHA256SUMS" "$out/SHA256SUMS.bundle.json"
}

((EUID == 0)) || die "the compilers run in a folder that root alone can make: run this as root"
[[ -f $key || $key == env://* ]] ||
    die "KEY names no file: make a key by cosign generate-key-pair, and run make release KEY=cosign.key"
need mmdebstrap:mmdebstrap xz:xz-utils /usr/bin/python3:python3-minimal /etc/ssl/certs/ca-certificates.crt:ca-certificates
release_tools
rm -rf "$out"
mkdir -p "$out" "$work"
trap stop_registry EXIT
epoch=$(git -C "$repo" log -1 --format=%ct)
export SOURCE_DATE_EPOCH=$epoch
sources
binaries
sboms
command_line
images
chart
provenance
signed
checksums
say "sockeye $version is in $out"
