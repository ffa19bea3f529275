#!/usr/bin/env bash
# tests/signatures/make.sh [FOLDER]: writes FOLDER/keys anew, by default that in tests/signatures/material: signatures of one
# small object and of images of it, made by Debian sid's cosign with keys that are thrown away; bundles that differ from
# these in one thing each; and what cosign itself says about all of them. The tests of crds/signature read them, those of
# the folder SOCKEYE_SIGNATURES if it is set. It has no network but loopback. Needs root.
#
#   object, manifest.digest, index.digest   what is signed
#   KEY.pub                                 public keys
#   NAME.json                               evidence, as sockeye_signature::Evidence reads it
#   verdicts.tsv                            NAME, KEY, cosign's verdict, its last words
set -euo pipefail
material=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/material}")/keys
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/packages.sh
source tests/packages.sh
# shellcheck source=tests/signatures/tools.sh
source tests/signatures/tools.sh

if [[ ${2:-} != within ]]; then
    need openssl:openssl /usr/bin/python3:python3-minimal curl:curl ip:iproute2
    use_registry_tools
    # A namespace has no network but the loopback device of its own.
    exec unshare --net tests/signatures/make.sh "${material%/*}" within
fi
ip link set lo up

work=$(mktemp -d)
trap 'stop_registry; rm -rf "$work"' EXIT
export COSIGN_PASSWORD='' COSIGN_YES=true HOME=$work
algorithms=(p256 p384 p521 ed25519)
# By key alone: no log, no timestamps, and nothing is fetched.
offline=(--use-signing-config=false --tlog-upload=false)

make_key() { # make_key NAME ALGORITHM: writes NAME.pem, NAME.key, as cosign has it, and NAME.pub
    local options=(-algorithm EC -pkeyopt "ec_paramgen_curve:P-${2#p}")
    [[ $2 != ed25519 ]] || options=(-algorithm ed25519)
    quietly openssl genpkey "${options[@]}" -out "$work/$1.pem"
    quietly cosign import-key-pair --key "$work/$1.pem" --output-key-prefix "$work/$1"
    cp "$work/$1.pub" "$material/"
}

# in_repository NAME: copies the image and its index to a repository of that name, and sets `image` to it.
in_repository() {
    image=$registry/$1
    quietly oras cp --recursive --from-plain-http --to-plain-http "$registry/guard:all" "$image:all"
}

digest_of() { # digest_of REFERENCE
    oras manifest fetch --plain-http --descriptor "$1" | grep -o 'sha256:[0-9a-f]*' | head -n 1
}

# hash_of KEY: the hash that cosign signs with by default, which it must be told to verify with.
hash_of() {
    case $1 in p384) echo sha384 ;; p521) echo sha512 ;; *) echo sha256 ;; esac
}

# verdict NAME KEY COMMAND...: notes what cosign says about a piece of evidence.
verdict() {
    local said=accepted
    cosign "${@:3:1}" --key "$work/$2.pub" --insecure-ignore-tlog --signature-digest-algorithm "$(hash_of "$2")" \
        "${@:4}" >"$work/log" 2>&1 || said=refused
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$said" "$(tail -n 1 "$work/log" | tr -d '\t' | sed "s/$registry/REGISTRY/g" | cut -c1-150)" \
        >>"$material/verdicts.tsv"
}

rm -rf "$material"
mkdir -p "$material"
start_registry "$work/registry"
registry=$registry_host
for algorithm in "${algorithms[@]}"; do make_key "$algorithm" "$algorithm"; done
make_key other p256

# The object: what it does is nothing to a signature. An image of it, and an index of that.
printf '\177ELF: an object of a test, of no use to a kernel\n' >"$material/object"
cp "$material/object" "$work/object"
(cd "$work" && quietly oras push --plain-http --artifact-type application/vnd.sockeye.test "$registry/guard:v1" \
    --annotation org.opencontainers.image.created=2026-01-01T00:00:00Z object:application/octet-stream)
quietly oras manifest index create --plain-http "$registry/guard:all" v1
digest=$(digest_of "$registry/guard:v1")
index=$(digest_of "$registry/guard:all")
printf %s "$digest" >"$material/manifest.digest"
printf %s "$index" >"$material/index.digest"

for key in "${algorithms[@]}"; do
    in_repository "$key-bundle"
    quietly cosign sign --key "$work/$key.key" "${offline[@]}" "$image@$digest"
    /usr/bin/python3 tests/signatures/pull.py "$image" "$digest" "$material/$key-bundle"
    verdict "$key-bundle" "$key" verify "$image@$digest"
    in_repository "$key-sig"
    quietly cosign sign --key "$work/$key.key" "${offline[@]}" --new-bundle-format=false "$image@$digest"
    /usr/bin/python3 tests/signatures/pull.py "$image" "$digest" "$material/$key-sig"
    verdict "$key-sig" "$key" verify --new-bundle-format=false "$image@$digest"
    quietly cosign sign-blob --key "$work/$key.key" "${offline[@]}" --bundle "$work/blob.json" "$material/object"
    evidence_of "$work/blob.json" Bundle bundle >"$material/$key-blob.json"
    verdict "$key-blob" "$key" verify-blob --bundle "$work/blob.json" "$material/object"
    case $key in
    ed25519) quietly openssl pkeyutl -sign -rawin -inkey "$work/$key.pem" -in "$work/object" -out "$work/signature" ;;
    *)
        # The hash of older versions of cosign, whatever the curve.
        quietly openssl dgst -sha256 -sign "$work/$key.pem" -out "$work/signature" "$work/object"
        evidence_of "$work/signature" Detached signature >"$material/$key-sha256-detached.json"
        quietly openssl dgst "-$(hash_of "$key")" -sign "$work/$key.pem" -out "$work/signature" "$work/object"
        ;;
    esac
    evidence_of "$work/signature" Detached signature >"$material/$key-detached.json"
done

in_repository index
quietly cosign sign --key "$work/p256.key" "${offline[@]}" "$image@$index"
/usr/bin/python3 tests/signatures/pull.py "$image" "$index" "$material/p256-index"
verdict p256-index p256 verify "$image@$index"

# The same key says what is in the image, which is no signature; cosign takes it for one.
in_repository sbom
printf '{"bomFormat": "CycloneDX", "specVersion": "1.6"}\n' >"$work/sbom.json"
quietly cosign attest --key "$work/p256.key" "${offline[@]}" --type cyclonedx --predicate "$work/sbom.json" "$image@$digest"
/usr/bin/python3 tests/signatures/pull.py "$image" "$digest" "$material/p256-sbom"
verdict p256-sbom p256 verify "$image@$digest"

# Another key's, and another object's.
in_repository other
quietly cosign sign --key "$work/other.key" "${offline[@]}" "$image@$digest"
/usr/bin/python3 tests/signatures/pull.py "$image" "$digest" "$material/other-bundle"
verdict other-bundle p256 verify "$image@$digest"
printf 'another object\n' >"$work/another"
quietly cosign sign-blob --key "$work/p256.key" "${offline[@]}" --bundle "$work/blob.json" "$work/another"
evidence_of "$work/blob.json" Bundle bundle >"$material/p256-another-blob.json"
verdict p256-another-blob p256 verify-blob --bundle "$work/blob.json" "$material/object"

mkdir "$work/altered"
/usr/bin/python3 tests/signatures/alter.py keys "$material"/p256-{bundle,blob}.json "$work/p256.pem" "$work/altered"
for file in "$work"/altered/*.json; do
    name=altered-$(basename "$file" .json)
    cp "$file" "$material/$name.json"
    bundle_of "$file" "$work/bundle.json"
    case $name in
    altered-blob-*) verdict "$name" p256 verify-blob --bundle "$work/bundle.json" "$material/object" ;;
    *)
        verdict "$name" p256 verify-blob-attestation --bundle "$work/bundle.json" --digest "${digest#sha256:}" \
            --digestAlg sha256 --type https://sigstore.dev/cosign/sign/v1
        ;;
    esac
done
echo "$(wc -l <"$material/verdicts.tsv") verdicts of cosign are in $material/verdicts.tsv"
