# shellcheck shell=bash
# Sourced: the services that sign by identity, and evidence as sockeye_signature::Evidence reads it.

# shellcheck source=tests/registry/lib.sh
source tests/registry/lib.sh

declare -A service_of=([fulcio]=fulcio [rekor]=rekor-server [tesseract]=tesseract [tsa]=timestamp-server)

# use_services: puts the services that sign by identity into PATH, and builds them if they are not there.
use_services() {
    local here=$PWD/tests/signatures/tools cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye} name dir
    for name in fulcio rekor tesseract tsa; do
        dir=$cache/signature-services/$name-$(cat "$here/$name/go.mod" "$here/$name/go.sum" | sha256sum | cut -c1-16)
        if [[ ! -d $dir ]]; then
            echo "building $name (once; minutes on two cores)" >&2
            rm -rf "$dir.part"
            mkdir -p "$dir.part"
            (cd "$here/$name" && CGO_ENABLED=0 nice go build -trimpath -ldflags '-s -w' -o "$dir.part/${service_of[$name]}" \
                "$(awk '$1 == "tool" { print $2 }' go.mod)")
            mv -T "$dir.part" "$dir"
        fi
        PATH=$dir:$PATH
    done
}

# quietly COMMAND...: shows what it says only if it fails.
# shellcheck disable=SC2154 # `work` is the script's
quietly() {
    "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
}

# bundle_of EVIDENCE FILE: writes the bundle in a piece of evidence to a file
bundle_of() {
    /usr/bin/python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["bundle"]))' \
        <"$1" >"$2"
}

# evidence_of FILE TYPE FIELD: prints a file as evidence
evidence_of() {
    printf '{\n "type": "%s",\n "%s": "%s"\n}\n' "$2" "$3" "$(base64 -w0 "$1")"
}
