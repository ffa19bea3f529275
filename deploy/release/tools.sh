# shellcheck shell=bash disable=SC2154 # repo and key are the caller's
# Sourced: what a release needs beside compilers: oras and cosign, of Debian's sid, and a registry on loopback to sign on.
# Nothing is installed.

# shellcheck source=tests/registry/lib.sh
source "$repo/tests/registry/lib.sh"

# Prints the version that the checkout would be released as.
release_version() { awk -F '"' '/^version/ {print $2; exit}' "$repo/Cargo.toml"; }

# Puts oras, cosign and helm into PATH.
release_tools() {
    local found
    use_registry_tools || return
    "$repo/tests/cluster/build-tools.sh" helm
    # shellcheck disable=SC2016 # the inner shell's own
    found=$("$BASH" -c 'source "$1" && tools_dir helm' - "$repo/tests/cluster/lib.sh")
    PATH=$found:$PATH
}

# sign IMAGE [OPTION...]: signs with $key. There is no transparency log: a key's signature needs none.
sign() {
    cosign sign --yes --key "$key" --use-signing-config=false --tlog-upload=false --allow-insecure-registry "${@:2}" "$1" \
        >/dev/null
}

# attest IMAGE TYPE FILE: attests a predicate about an image.
attest() {
    cosign attest --yes --key "$key" --use-signing-config=false --tlog-upload=false --allow-insecure-registry --type "$2" \
        --predicate "$3" "$1" >/dev/null
}

# sign_blob FILE BUNDLE: signs a file.
sign_blob() {
    cosign sign-blob --yes --key "$key" --use-signing-config=false --tlog-upload=false --bundle "$2" "$1" >/dev/null
}
