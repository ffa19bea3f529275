#!/usr/bin/env bash
# tests/release.sh: builds the release twice, compares the two, publishes one to a registry on loopback, and checks what is
# there by cosign, oras and Helm. A part of `make chaos`: two builds for two architectures take an hour on two cores. Needs
# root. The registry is on loopback and ends with it.
#
# The record of what it made is target/release-test/release.json. Copy it to tests/release.json, which a plain test reads
# (tests/tests/release_record.rs).
#
#   SOCKEYE_RELEASE_LTO   off: binaries without link-time optimization, in a third of the time; the record says so
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/packages.sh
source "$repo/tests/packages.sh"
# shellcheck source=deploy/release/tools.sh
source "$repo/deploy/release/tools.sh"
work=$repo/target/release-test
version=$(release_version)
passed=0 failed=0

# test_that NAME COMMAND...: runs a check, and says how it went as cargo's tests do.
test_that() {
    local name=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        echo "test $name ... ok"
        passed=$((passed + 1))
    else
        echo "test $name ... FAILED"
        tail -n 20 "$work/output"
        failed=$((failed + 1))
    fi
}

fails() { ! "$@"; }

# build NAME: a release in a folder of its own, with nothing left of another build.
build() {
    SOCKEYE_RELEASE_WORK=$work/$1-work SOCKEYE_RELEASE_OUT=$work/$1 KEY=$work/cosign.key REGISTRY=registry.example/sockeye \
        "$repo/deploy/release/release.sh"
}

verified() { cosign verify --key "$work/cosign.pub" --insecure-ignore-tlog=true --allow-insecure-registry "$@"; }

# attested TYPE IMAGE: prints the predicate that is attested about an image.
attested() {
    cosign verify-attestation --key "$work/cosign.pub" --insecure-ignore-tlog=true --allow-insecure-registry --type "$1" \
        "$2" | head -n 1 | /usr/bin/python3 -c '
import base64, json, sys
print(json.dumps(json.loads(base64.b64decode(json.load(sys.stdin)["payload"]))["predicate"], sort_keys=True))'
}

# same_predicate TYPE IMAGE FILE: what is attested is what the file says.
same_predicate() {
    diff <(attested "$1" "$2") <(/usr/bin/python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin), sort_keys=True))' <"$3")
}

blob_verified() {
    cosign verify-blob --key "$work/cosign.pub" --insecure-ignore-tlog=true --bundle "$1" "$2"
}

# The files that SHA256SUMS lists are as it says.
sums() { (cd "$1" && grep -v ':' SHA256SUMS | sha256sum --check --quiet); }

# The chart in the registry runs exactly the images beside it.
chart_names_the_images() {
    local rendered name
    rendered=$(helm template sockeye "oci://$registry_host/charts/sockeye" --version "$version" --plain-http) || return
    for name in operator agent; do
        grep -q "registry.example/sockeye/sockeye-$name@$(oras resolve --plain-http "$registry_host/sockeye-$name:$version")" \
            <<<"$rendered" || return
    done
}

# image_holds NAME ARCH: an image has the binary that the release has as a file, its SBOM, and nothing else.
image_holds() {
    local folder=$work/unpacked
    rm -rf "$folder"
    mkdir -p "$folder"
    oras pull --plain-http --platform "linux/$2" --output "$folder" "$registry_host/sockeye-$1:$version" &&
        tar -xzf "$folder/layer.tar.gz" -C "$folder" &&
        cmp "$folder/sockeye" "$work/one/sockeye-$1-$2" &&
        cmp "$folder/sbom.json" "$work/one/sockeye-$1-$2.cdx.json" &&
        [[ $(tar -tzf "$folder/layer.tar.gz" | sort | xargs) == "./ ./sbom.json ./sockeye" ]] &&
        tar -tvzf "$folder/layer.tar.gz" --numeric-owner | awk '$2 != "0/0" {exit 1}'
}

# runs NAME ARCH: the binary starts on that architecture.
runs() {
    local emulator=
    [[ $2 == amd64 ]] || emulator=qemu-aarch64-static
    [[ $($emulator "$work/one/sockeye-$1-$2" --version) == "sockeye-$1 $version" ]]
}

# command_line_holds ARCH: the archive has the command line, which starts on that architecture, its licence, and nothing else.
command_line_holds() {
    local folder=$work/command-line emulator=
    [[ $1 == amd64 ]] || emulator=qemu-aarch64-static
    rm -rf "$folder"
    mkdir -p "$folder"
    tar -xzf "$work/one/sockeye-linux-$1.tar.gz" -C "$folder" &&
        [[ $(cd "$folder" && find . -mindepth 1 | sort | xargs) == "./LICENSE ./sockeye" ]] &&
        [[ $($emulator "$folder/sockeye" --version) == "sockeye $version" ]]
}

# Krew's validator installs the archives by the manifest, which names where users will find them: here that is loopback.
krew_installs_it() {
    local port folder=$work/krew
    mkdir -p "$folder"
    "$repo/tests/cluster/build-tools.sh" kubectl kubectl-krew validate-krew-manifest
    port=$(free_port)
    /usr/bin/python3 -m http.server --bind 127.0.0.1 --directory "$work/one" "$port" &
    local server=$!
    sed "s|https://github.com/sockeye-dev/sockeye/releases/download/v$version|http://127.0.0.1:$port|" \
        "$work/one/sockeye.yaml" >"$folder/sockeye.yaml"
    # shellcheck disable=SC2016 # the inner shell's own
    wait_for_port "$port" && "$BASH" -c 'source "$1" && PATH=$(tools_path) validate-krew-manifest -manifest "$2"' - "$repo/tests/cluster/lib.sh" \
        "$folder/sockeye.yaml"
    local status=$?
    kill "$server"
    return "$status"
}

# What was made, for tests/release.json.
recorded() { "$repo/tests/release_record.py" "$work/one" "$work/two" >"$work/release.json"; }

need qemu-aarch64-static:qemu-user-static /usr/bin/python3:python3-minimal
release_tools
rm -rf "$work"
mkdir -p "$work"
trap stop_registry EXIT
export COSIGN_PASSWORD=test
(cd "$work" && cosign generate-key-pair)
build one
(umask 077 && TZ=Pacific/Auckland LC_ALL=C build two)

test_that two_builds_have_the_same_digests diff "$work"/{one,two}/SHA256SUMS
test_that the_sums_are_those_of_the_files sums "$work/one"
test_that the_sums_are_signed blob_verified "$work/one/SHA256SUMS.bundle.json" "$work/one/SHA256SUMS"
for object in "$work"/one/builtins/*.o; do
    test_that "builtin_$(basename "$object" .o)_is_signed" blob_verified "${object%.o}.bundle.json" "$object"
done
cp "$work/one/SHA256SUMS" "$work/altered"
echo >>"$work/altered"
test_that an_altered_list_is_refused fails blob_verified "$work/one/SHA256SUMS.bundle.json" "$work/altered"

start_registry "$work/registry"
REGISTRY=$registry_host REGISTRY_OPTIONS=--to-plain-http SOCKEYE_RELEASE_OUT=$work/one "$repo/deploy/release/publish.sh"
for name in sockeye-operator sockeye-agent charts/sockeye; do
    test_that "${name//[\/-]/_}_is_signed" verified "$registry_host/$name:$version"
    test_that "${name//[\/-]/_}_has_its_provenance" same_predicate slsaprovenance1 "$registry_host/$name:$version" \
        "$work/one/provenance.json"
done
for name in operator agent; do
    for arch in amd64 arm64; do
        image=$registry_host/sockeye-$name@$(oras resolve --plain-http --platform "linux/$arch" \
            "$registry_host/sockeye-$name:$version")
        test_that "${name}_for_${arch}_is_signed" verified "$image"
        test_that "${name}_for_${arch}_has_its_sbom" same_predicate cyclonedx "$image" \
            "$work/one/sockeye-$name-$arch.cdx.json"
        test_that "${name}_for_${arch}_holds_its_binary_and_sbom" image_holds "$name" "$arch"
        test_that "${name}_for_${arch}_runs" runs "$name" "$arch"
    done
done
test_that the_chart_names_the_images_by_digest chart_names_the_images
for arch in amd64 arm64; do
    test_that "the_command_line_for_${arch}_runs" command_line_holds "$arch"
done
test_that krew_installs_the_command_line krew_installs_it
test_that the_release_can_be_recorded recorded

echo "test result: $( ((failed)) && echo FAILED || echo ok). $passed passed; $failed failed"
((failed == 0))
