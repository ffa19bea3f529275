#!/usr/bin/env python3
"""tests/release_record.py ONE TWO: prints the record of a release that was built twice: what is in it, with digests and sizes.

tests/release.sh calls it once all its checks have passed; tests/release.json is the last record, and a plain test reads it.
Fails if the two builds differ, or if the release is not what its own SHA256SUMS says.
"""

import base64
import hashlib
import json
import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
# The files that determine what is in a release and how it is laid out. What only signs, copies or checks is not among them.
PACKAGING = ["deploy/release/krew.py", "deploy/release/layout.sh", "deploy/release/provenance.py",
             "deploy/release/release.sh", "deploy/release/values.py", "deploy/sbom.py", "deploy/sbom.sh",
             "tests/debian_root.sh"]
# The packages whose versions are worth a line: the compilers and the C library.
PACKAGES = {"rustc", "cargo", "clang-19", "libc6-dev", "libbpf-dev"}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def blob(layout, digest):
    """Reads a blob of an OCI layout, and checks its digest."""
    algorithm, _, name = digest.partition(":")
    data = (layout / "blobs" / algorithm / name).read_bytes()
    if sha256(data) != name:
        sys.exit(f"{layout}: the blob {digest} has another digest")
    return data


def size(layout, manifest):
    """Returns the bytes of a manifest's layers and configuration, each of which is there as it says."""
    parts = manifest["layers"] + [manifest["config"]]
    for part in parts:
        if len(blob(layout, part["digest"])) != part["size"]:
            sys.exit(f"{layout}: the blob {part['digest']} has another size")
    return sum(part["size"] for part in parts)


def said(layout, manifest):
    """Returns what a referrer says of its subject: the type of its statement."""
    bundle = json.loads(blob(layout, manifest["layers"][0]["digest"]))
    return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["predicateType"]


def image(layout, tag):
    """Returns the digest of a layout's image or chart, and, for each manifest of it, its bytes and what is said of it."""
    listed = json.loads((layout / "index.json").read_text())["manifests"]
    manifests = {entry["digest"]: json.loads(blob(layout, entry["digest"])) for entry in listed}
    digest = next(entry["digest"] for entry in listed
                  if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag)
    statements = {}
    for manifest in manifests.values():
        if "subject" in manifest:
            statements.setdefault(manifest["subject"]["digest"], []).append(said(layout, manifest))
    found = {"digest": digest, "statements": sorted(statements.get(digest, []))}
    if "manifests" not in manifests[digest]:
        return found | {"bytes": size(layout, manifests[digest])}
    return found | {"architectures": {
        entry["platform"]["architecture"]: {
            "digest": entry["digest"],
            "bytes": size(layout, manifests[entry["digest"]]),
            "statements": sorted(statements.get(entry["digest"], [])),
        } for entry in manifests[digest]["manifests"]
    }}


def main():
    one, two = map(Path, sys.argv[1:])
    sums = (one / "SHA256SUMS").read_text()
    if sums != (two / "SHA256SUMS").read_text():
        sys.exit("the two builds differ")

    def signed(bundle):
        file = bundle.with_name(bundle.name.removesuffix(".bundle.json"))
        return str((file if file.exists() else file.with_suffix(".o")).relative_to(one))

    files, images = {}, {}
    for line in sums.splitlines():
        digest, name = line.split("  ")
        if ":" in name:
            layout, tag = name.split(":")
            images[layout] = image(one / layout, tag)
            if images[layout]["digest"] != f"sha256:{digest}":
                sys.exit(f"{layout} is not what SHA256SUMS says")
            continue
        data = (one / name).read_bytes()
        if sha256(data) != digest:
            sys.exit(f"{name} is not what SHA256SUMS says")
        files[name] = {"sha256": digest, "bytes": len(data)}
    definition = json.loads((one / "provenance.json").read_text())["buildDefinition"]
    dependencies = definition["resolvedDependencies"]
    debian = (entry["uri"].removeprefix("pkg:deb/debian/") for entry in dependencies)
    json.dump({
        "version": definition["externalParameters"]["version"],
        "commit": dependencies[0]["digest"]["gitCommit"],
        "linkTimeOptimization": os.environ.get("SOCKEYE_RELEASE_LTO", "thin") or None,
        "compilers": sorted(package for package in debian if package.partition("@")[0] in PACKAGES),
        "packaging": {name: sha256((REPO / name).read_bytes()) for name in PACKAGING},
        "images": images,
        "files": files,
        "signedFiles": sorted(signed(path) for path in one.rglob("*.bundle.json")),
    }, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
