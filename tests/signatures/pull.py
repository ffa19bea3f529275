#!/usr/bin/python3
"""Reads the one signature of an image out of a registry without TLS, as evidence.

    pull.py REPOSITORY DIGEST NAME    writes NAME.json: {"type": "Bundle", ...} or {"type": "SimpleSigning", ...}, as
                                      sockeye_signature::Evidence reads it

Bundles are found by the tag that stands for the referrers API, and by nothing that the manifests say of themselves.
"""

import base64
import json
import sys
import urllib.error
import urllib.request

ACCEPT = ", ".join(f"application/vnd.{name}+json" for name in (
    "oci.image.manifest.v1", "oci.image.index.v1", "docker.distribution.manifest.v2"))
PREFIX = "dev.cosignproject.cosign/signature"


def get(repository, path):
    registry, name = repository.split("/", 1)
    request = urllib.request.Request(f"http://{registry}/v2/{name}/{path}", headers={"Accept": ACCEPT})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return b"{}"
        raise


def bundles(repository, tag):
    for manifest in json.loads(get(repository, f"manifests/{tag}")).get("manifests", []):
        for layer in json.loads(get(repository, f"manifests/{manifest['digest']}"))["layers"]:
            if "sigstore.bundle" in layer["mediaType"]:
                yield {"type": "Bundle", "bundle": text(get(repository, f"blobs/{layer['digest']}"))}


def simple_signatures(repository, tag):
    for layer in json.loads(get(repository, f"manifests/{tag}.sig")).get("layers", []):
        notes = layer["annotations"]
        found = {"type": "SimpleSigning", "payload": text(get(repository, f"blobs/{layer['digest']}")), "signature": notes[PREFIX]}
        for name in ("certificate", "chain", "bundle"):
            if f"dev.sigstore.cosign/{name}" in notes:
                found[name] = notes[f"dev.sigstore.cosign/{name}"]
        yield found


def text(content):
    return base64.b64encode(content).decode()


def main():
    repository, digest, file = sys.argv[1:]
    tag = digest.replace(":", "-")
    found = [*bundles(repository, tag), *simple_signatures(repository, tag)]
    if len(found) != 1:
        sys.exit(f"{repository} has {len(found)} signatures of {digest}, not one")
    with open(f"{file}.json", "w") as to:
        json.dump(found[0], to, indent=1)
        to.write("\n")


if __name__ == "__main__":
    main()
