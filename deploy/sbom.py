"""Completes an SBOM (CycloneDX, JSON) with what cargo does not know; used by deploy/sbom.sh.

sbom.py binary REPO LIBC < made-by-cargo-cyclonedx   of a binary: the C library is linked in; the checkout's path is not told
sbom.py chart IMAGE...                               of the chart: the images that it installs, and the SBOM in each
"""

import hashlib
import json
import sys


def binary(repo, libc):
    bom = json.loads(sys.stdin.read().replace(f"file://{repo}", "file://."))
    reference = f"pkg:generic/glibc@{libc}"
    bom["components"].append({
        "type": "library",
        "bom-ref": reference,
        "name": "glibc",
        "version": libc,
        "description": "The GNU C library, linked in",
        "scope": "required",
        "licenses": [{"expression": "LGPL-2.1-or-later"}],
        "purl": reference,
    })
    root = bom["metadata"]["component"]["bom-ref"]
    for dependency in bom["dependencies"]:
        if dependency["ref"] == root:
            dependency.setdefault("dependsOn", []).append(reference)
    bom["dependencies"].append({"ref": reference})
    return bom


def chart(*images):
    components = []
    for path in images:
        with open(path, "rb") as file:
            text = file.read()
        bom = json.loads(text)
        of = bom["metadata"]["component"]
        components.append({
            "type": "container",
            "bom-ref": f"image:{of['name']}",
            "name": of["name"],
            "version": of["version"],
            "licenses": of["licenses"],
            "externalReferences": [{
                "type": "bom",
                "url": "file:///sbom.json",
                "comment": "in the image",
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(text).hexdigest()}],
            }],
        })
    return {
        "bomFormat": "CycloneDX",
        "specVersion": bom["specVersion"],
        "version": 1,
        "metadata": {
            "timestamp": bom["metadata"]["timestamp"],
            "component": {
                "type": "application",
                "bom-ref": "chart:sockeye",
                "name": "sockeye",
                "version": of["version"],
                "description": "The Helm chart",
                "licenses": of["licenses"],
            },
        },
        "components": components,
        "dependencies": [{"ref": "chart:sockeye", "dependsOn": [c["bom-ref"] for c in components]}],
    }


def main():
    bom = {"binary": binary, "chart": chart}[sys.argv[1]](*sys.argv[2:])
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
