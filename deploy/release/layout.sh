# shellcheck shell=bash disable=SC2154 # epoch is release.sh's
# Sourced: images in OCI layouts, made without a daemon. The same content gives the same digests: $epoch is the time of all of
# it.

# tar_of FOLDER: prints a folder as a tar, which says nothing of who made it, when, and under what umask.
tar_of() {
    tar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=posix \
        --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime -c -C "$1" .
}

# layout_image LAYOUT TAG ARCH USER FOLDER: makes an image whose one layer is a folder, and whose command is /sockeye in it.
layout_image() {
    local layout=$1 tag=$2 arch=$3 user=$4 made
    made=$(mktemp -d)
    tar_of "$5" >"$made/layer.tar"
    /usr/bin/python3 - "$made/layer.tar" "$arch" "$user" "$epoch" >"$made/config.json" <<'PYTHON'
import datetime, hashlib, json, sys

layer, architecture, user, epoch = sys.argv[1:]
created = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
with open(layer, "rb") as file:
    digest = hashlib.sha256(file.read()).hexdigest()
json.dump({
    "created": created,
    "architecture": architecture,
    "os": "linux",
    "config": {"User": user, "Entrypoint": ["/sockeye"]},
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    "history": [{"created": created, "created_by": "deploy/release"}],
}, sys.stdout)
PYTHON
    gzip -n -9 "$made/layer.tar"
    (
        cd "$made" || exit
        oras push --no-tty --oci-layout "$layout:$tag" --config config.json:application/vnd.oci.image.config.v1+json \
            --annotation "org.opencontainers.image.created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" \
            layer.tar.gz:application/vnd.oci.image.layer.v1.tar+gzip >/dev/null
    )
    rm -rf "$made"
}

# layout_index LAYOUT TAG ARCH...: makes an index of the images TAG-ARCH.
layout_index() {
    local layout=$1 tag=$2
    shift 2
    oras manifest index create --oci-layout "$layout:$tag" "${@/#/$tag-}" >/dev/null
}

# layout_digest LAYOUT TAG: prints the digest of an image or an index.
layout_digest() {
    oras resolve --oci-layout "$1:$2"
}
