#!/usr/bin/env bash
# tests/signatures/keyless.sh [FOLDER]: writes FOLDER/keyless anew, by default that in tests/signatures/material: a trust
# root, and signatures by identity that Debian sid's cosign makes with the real services: Fulcio, Rekor (on tiles), a log of
# certificates (TesseraCT) and a timestamp authority, all on the loopback device of a network namespace of their own. Each
# bundle also with one thing altered, and what cosign says about it. Needs root.
#
# The services are built once, from Go modules at pinned versions (tools/*/go.mod), into the cache.
set -euo pipefail
material=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/material}")/keyless
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/packages.sh
source tests/packages.sh
# shellcheck source=tests/signatures/tools.sh
source tests/signatures/tools.sh

if [[ ${2:-} != within ]]; then
    need openssl:openssl /usr/bin/python3:python3-minimal curl:curl ip:iproute2 go:golang-go \
        faketime:faketime
    use_registry_tools
    use_services
    # A namespace has no network but the loopback device of its own.
    exec unshare --net --mount --propagation private tests/signatures/keyless.sh "${material%/*}" within
fi
ip link set lo up

work=$(mktemp -d)
services=()
trap 'kill "${services[@]}" 2>/dev/null || true; stop_registry; rm -rf "$work"' EXIT
export COSIGN_PASSWORD='' COSIGN_YES=true HOME=$work

# service NAME COMMAND...: runs a service, whose output is shown if the script fails.
service() {
    "${@:2}" >"$work/$1.log" 2>&1 &
    services+=($!)
}

# answers URL: waits until a server answers there, with whatever.
answers() {
    for _ in {1..150}; do
        ! curl -so /dev/null "$1" || return 0
        sleep 0.2
    done
    echo "nothing answers at $1" >&2
    tail -n 5 "$work"/*.log >&2
    return 1
}

oidc=http://localhost:7000
fulcio=http://localhost:7100
ct_log=http://localhost:7200
rekor=http://localhost:7300
tsa=http://localhost:7400

# authority NAME: makes a certificate authority, NAME.key and NAME.crt
authority() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/$1.key"
    openssl req -x509 -new -key "$work/$1.key" -days 3650 -subj "/O=sockeye tests/CN=$1" -out "$work/$1.crt" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}

# sign_for_timestamps AUTHORITY: makes a signer of timestamps below it, AUTHORITY-leaf.key and AUTHORITY-leaf.crt
sign_for_timestamps() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/$1-leaf.key"
    openssl req -new -key "$work/$1-leaf.key" -subj "/O=sockeye tests/CN=$1 leaf" -out "$work/$1-leaf.csr"
    quietly openssl x509 -req -in "$work/$1-leaf.csr" -CA "$work/$1.crt" -CAkey "$work/$1.key" -CAcreateserial -days 3650 \
        -out "$work/$1-leaf.crt" \
        -extfile <(printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n')
}

authority fulcio
openssl pkcs8 -topk8 -in "$work/fulcio.key" -v2 aes-256-cbc -passout pass:test -out "$work/fulcio.enc"
authority tsa
sign_for_timestamps tsa
cat "$work/tsa-leaf.crt" "$work/tsa.crt" >"$work/tsa-chain.pem"
for log in ct rekor; do
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/$log.key"
    openssl pkcs8 -topk8 -nocrypt -in "$work/$log.key" -out "$work/$log.pk8"
    openssl pkey -in "$work/$log.key" -pubout -out "$work/$log.pub"
done
openssl genrsa -out "$work/oidc.key" 2048 2>/dev/null

cat >"$work/fulcio.yaml" <<EOF
oidc-issuers:
  $oidc: {issuer-url: "$oidc", client-id: sigstore, type: email}
EOF
service oidc /usr/bin/python3 tests/signatures/issuer.py serve "$oidc" "$work/oidc.key"
service ct tesseract --private_key="$work/ct.key" --origin=ct.localhost --roots_pem_file="$work/fulcio.crt" \
    --storage_dir="$work/ct" --http_endpoint=localhost:7200 --ext_key_usages=CodeSigning
service rekor rekor-server serve --hostname localhost --http-port 7300 --grpc-port 7301 --http-metrics-port 7302 \
    --signer-filepath "$work/rekor.pk8" --storage-dir "$work/rekor" --checkpoint-interval 2s
service tsa timestamp-server serve --host 127.0.0.1 --port 7400 --disable-ntp-monitoring --timestamp-signer file \
    --file-signer-key-path "$work/tsa-leaf.key" --certificate-chain-path "$work/tsa-chain.pem"
answers "$oidc/keys"
answers "$ct_log/ct/v1/get-roots"
# start_fulcio OPTION...: starts the authority of certificates, and sets `fulcio_pid`
start_fulcio() {
    service fulcio fulcio serve --host 127.0.0.1 --port 7100 --grpc-port 7101 --metrics-port 7102 \
        --config-path "$work/fulcio.yaml" --ca fileca --fileca-cert "$work/fulcio.crt" --fileca-key "$work/fulcio.enc" \
        --fileca-key-passwd test "$@"
    fulcio_pid=$!
    answers "$fulcio/api/v2/configuration"
}
start_fulcio --ct-log-url="$ct_log" --ct-log-origin=ct.localhost --ct-log-public-key-path="$work/ct.pub"
answers "$rekor/healthz"
answers "$tsa/ping"
start_registry "$work/registry"
registry=$registry_host

rm -rf "$material"
mkdir -p "$material" "$work/roots"
root=$material/trusted_root.json
# Long ago, so that no machine's clock is before it.
start=2020-01-01T00:00:00Z
quietly cosign trusted-root create --out "$root" \
    --fulcio="url=$fulcio,certificate-chain=$work/fulcio.crt,start-time=$start" \
    --ctfe="url=$ct_log,public-key=$work/ct.pub,start-time=$start,origin=ct.localhost" \
    --rekor="url=$rekor,public-key=$work/rekor.pub,start-time=$start,origin=localhost" \
    --tsa="url=$tsa/api/v1/timestamp,certificate-chain=$work/tsa-chain.pem,start-time=$start"
quietly cosign signing-config create --out "$work/signing.json" --rekor-config=ANY --tsa-config=ANY \
    --fulcio="url=$fulcio,api-version=1,operator=tests,start-time=$start" \
    --rekor="url=$rekor,api-version=2,operator=tests,start-time=$start" \
    --tsa="url=$tsa/api/v1/timestamp,api-version=1,operator=tests,start-time=$start" \
    --oidc-provider="url=$oidc,api-version=1,operator=tests,start-time=$start"

cosign_as() { # cosign_as EMAIL COMMAND ARGUMENT...: signs as somebody
    local token
    token=$(/usr/bin/python3 tests/signatures/issuer.py token "$oidc" "$work/oidc.key" "$1")
    quietly cosign "$2" --identity-token "$token" --signing-config "$work/signing.json" --trusted-root "$root" "${@:3}"
}

# verdict NAME ROOT COMMAND...: notes what cosign says about a bundle, asked for release@example.com.
verdict() {
    local said=accepted
    cosign "${@:3:1}" --trusted-root "$2" --use-signed-timestamps --certificate-identity release@example.com \
        --certificate-oidc-issuer "$oidc" "${@:4}" >"$work/log" 2>&1 || said=refused
    printf '%s\t%s\t%s\t%s\n' "$1" "$(basename "$2" .json)" "$said" "$(tail -n 1 "$work/log" | tr -d '\t' | cut -c1-150)" \
        >>"$material/verdicts.tsv"
}

of_image() { # of_image BUNDLE: the arguments by which cosign verifies an image's bundle
    echo "verify-blob-attestation --bundle $1 --digest ${digest#sha256:} --digestAlg sha256 --type https://sigstore.dev/cosign/sign/v1"
}

printf '\177ELF: an object of a test, of no use to a kernel\n' >"$work/object"
cp "$work/object" "$material/"
(cd "$work" && quietly oras push --plain-http --artifact-type application/vnd.sockeye.test "$registry/guard:v1" \
    object:application/octet-stream)
digest=$(oras manifest fetch --plain-http --descriptor "$registry/guard:v1" | grep -o 'sha256:[0-9a-f]*' | head -n 1)
printf %s "$digest" >"$material/manifest.digest"
for person in release other; do
    quietly oras cp --from-plain-http --to-plain-http "$registry/guard:v1" "$registry/$person:v1"
    cosign_as "$person@example.com" sign "$registry/$person@$digest"
    /usr/bin/python3 tests/signatures/pull.py "$registry/$person" "$digest" "$material/image-by-$person"
    cosign_as "$person@example.com" sign-blob --bundle "$work/blob-by-$person.bundle" "$work/object"
    evidence_of "$work/blob-by-$person.bundle" Bundle bundle >"$material/blob-by-$person.json"
    bundle_of "$material/image-by-$person.json" "$work/image-by-$person.bundle"
    # shellcheck disable=SC2046 # options, not one word
    verdict "image-by-$person" "$root" $(of_image "$work/image-by-$person.bundle")
    verdict "blob-by-$person" "$root" verify-blob --bundle "$work/blob-by-$person.bundle" "$work/object"
done

# A timestamp by the same authority, an hour late, and one by a stranger.
/usr/bin/python3 tests/signatures/alter.py signature "$material/image-by-release.json" >"$work/signature"
stamp() { # stamp NAME KEY CERTIFICATE OFFSET: writes NAME.tsr
    printf '[tsa]\nserial = %s\ndefault_policy = 1.3.6.1.4.1.57264.2\ndigests = sha256\nsigner_digest = sha256\n' "$work/serial" >"$work/tsa.conf"
    openssl ts -query -data "$work/signature" -sha256 -cert -out "$work/query.tsq" 2>/dev/null
    quietly faketime "$4" openssl ts -reply -config "$work/tsa.conf" -section tsa -queryfile "$work/query.tsq" \
        -inkey "$2" -signer "$3" -out "$work/$1.tsr"
}
echo 01 >"$work/serial"
authority strangers
sign_for_timestamps strangers
stamp now "$work/tsa-leaf.key" "$work/tsa-leaf.crt" '+0 seconds'
stamp late "$work/tsa-leaf.key" "$work/tsa-leaf.crt" '+1 hour'
stamp strange "$work/strangers-leaf.key" "$work/strangers-leaf.crt" '+0 seconds'

# The same with a Fulcio that has no log of certificates.
kill "$fulcio_pid"
wait "$fulcio_pid" || true
start_fulcio --ct-log-url=
cosign_as release@example.com sign-blob --bundle "$work/no-sct.bundle" "$work/object" ||
    echo "cosign signs nothing without SCT" >&2

mkdir "$work/altered"
/usr/bin/python3 tests/signatures/alter.py identity "$material"/image-by-{release,other}.json "$work" "$work/altered"
for file in "$work"/altered/*.json; do
    name=altered-$(basename "$file" .json)
    cp "$file" "$material/$name.json"
    bundle_of "$file" "$work/bundle"
    # shellcheck disable=SC2046 # options, not one word
    verdict "$name" "$root" $(of_image "$work/bundle")
done
if [[ -e $work/no-sct.bundle ]]; then
    evidence_of "$work/no-sct.bundle" Bundle bundle >"$material/blob-without-sct.json"
    verdict blob-without-sct "$root" verify-blob --bundle "$work/no-sct.bundle" "$work/object"
fi
/usr/bin/python3 tests/signatures/alter.py roots "$root" "$work" "$work/roots"
mkdir "$material/roots"
for file in "$work"/roots/*.json; do
    cp "$file" "$material/roots/"
    # shellcheck disable=SC2046 # options, not one word
    verdict image-by-release "$file" $(of_image "$work/image-by-release.bundle")
done
date +%s >"$material/time"
echo "$(wc -l <"$material/verdicts.tsv") verdicts of cosign are in $material/verdicts.tsv"
