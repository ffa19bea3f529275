#!/usr/bin/python3
"""Writes bundles, or trust roots, that differ from a good one in one thing each.

    alter.py keys IMAGE.json BLOB.json KEY.pem FOLDER       of signatures by key. KEY.pem is the private key of both, with
                                                            which statements are signed that cosign does not write
    alter.py identity IMAGE.json OTHER.json WORK FOLDER     of a signature by identity. OTHER.json is by another one; WORK
                                                            has timestamps of the signature, as now, late and strange.tsr
    alter.py roots ROOT.json WORK FOLDER                    of a trust root. WORK has a certificate, strangers.crt
    alter.py signature IMAGE.json                           prints the signature itself

IMAGE.json and BLOB.json are evidence as pull.py writes it: an image's bundle and a file's.
"""

import base64
import copy
import json
import subprocess
import sys
from pathlib import Path

IN_TOTO = "application/vnd.in-toto+json"


def text(content):
    return base64.b64encode(content).decode()


def write(folder, name, bundle):
    content = bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode()
    evidence = {"type": "Bundle", "bundle": text(content)}
    (folder / f"{name}.json").write_text(json.dumps(evidence, indent=1) + "\n")


def changed(bundle, path, value):
    """A copy of a bundle with one member set, or taken out if the value is None."""
    bundle = copy.deepcopy(bundle)
    at = bundle
    for part in path[:-1]:
        at = at[part]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return bundle


def signed(bundle, key, payload, payload_type=IN_TOTO):
    """A copy of an image's bundle with another payload, signed by the same key."""
    pae = b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)
    signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=pae, check=True, stdout=subprocess.PIPE)
    envelope = {"payload": text(payload), "payloadType": payload_type, "signatures": [{"sig": text(signature.stdout)}]}
    return {**bundle, "dsseEnvelope": envelope}


def statements(payload):
    """Yields statements that this key could have signed, as (name, text)."""
    statement = json.loads(payload)
    this = statement["subject"]
    other = [{"name": "other", "digest": {"sha256": "00" * 32}}]
    yield "statement-of-in-toto-0.1", {**statement, "_type": "https://in-toto.io/Statement/v0.1"}
    yield "statement-of-unknown-type", {**statement, "_type": "https://in-toto.io/Statement/v9"}
    yield "statement-of-another-predicate", {**statement, "predicateType": "https://slsa.dev/provenance/v1"}
    yield "statement-without-predicate-type", {name: statement[name] for name in statement if name != "predicateType"}
    yield "statement-without-subject", {**statement, "subject": []}
    yield "statement-of-another-subject", {**statement, "subject": other}
    yield "statement-of-two-subjects", {**statement, "subject": other + this}
    yield "statement-with-a-sha512-alone", {**statement, "subject": [{"digest": {"sha512": this[0]["digest"]["sha256"]}}]}
    yield "statement-with-a-digest-in-capitals", {
        **statement, "subject": [{"digest": {"sha256": this[0]["digest"]["sha256"].upper()}}]}
    twice = json.dumps(statement).replace('"predicateType"', '"predicateType": "https://slsa.dev/provenance/v1", "predicateType"')
    yield "statement-with-a-member-twice", twice


def envelopes(bundle):
    """Yields altered bundles of an image, as (name, bundle)."""
    signature = ["dsseEnvelope", "signatures", 0, "sig"]
    raw = base64.b64decode(bundle["dsseEnvelope"]["signatures"][0]["sig"])
    whole = json.dumps(bundle)
    yield "hint-changed", changed(bundle, ["verificationMaterial", "publicKey", "hint"], "another")
    yield "member-unknown", changed(bundle, ["madeUp"], 1)
    yield "media-type-0.1", changed(bundle, ["mediaType"], "application/vnd.dev.sigstore.bundle+json;version=0.1")
    yield "media-type-0.2", changed(bundle, ["mediaType"], "application/vnd.dev.sigstore.bundle+json;version=0.2")
    yield "media-type-0.3-older", changed(bundle, ["mediaType"], "application/vnd.dev.sigstore.bundle+json;version=0.3")
    yield "media-type-0.9", changed(bundle, ["mediaType"], "application/vnd.dev.sigstore.bundle.v0.9+json")
    yield "media-type-missing", changed(bundle, ["mediaType"], None)
    yield "material-missing", changed(bundle, ["verificationMaterial"], None)
    yield "payload-type-changed", changed(bundle, ["dsseEnvelope", "payloadType"], "application/json")
    yield "payload-not-canonical", changed(bundle, ["dsseEnvelope", "payload"], bundle["dsseEnvelope"]["payload"].rstrip("="))
    yield "signatures-none", changed(bundle, ["dsseEnvelope", "signatures"], [])
    yield "signatures-two", changed(bundle, ["dsseEnvelope", "signatures"], bundle["dsseEnvelope"]["signatures"] * 2)
    yield "signature-cut", changed(bundle, signature, text(raw[:-1]))
    yield "signature-longer", changed(bundle, signature, text(raw + b"\0"))
    yield "signature-empty", changed(bundle, signature, "")
    yield "signature-other", changed(bundle, signature, text(raw[:-1] + bytes([raw[-1] ^ 1])))
    yield "text-cut", whole[:-20].encode()
    yield "text-twice", (whole + whole).encode()
    yield "text-with-a-member-twice", whole.replace('"payload"', '"payload": "e30=", "payload"').encode()
    yield "text-with-both-contents", changed(bundle, ["messageSignature"], {"signature": text(raw)})


def blobs(bundle):
    """Yields altered bundles of a file, as (name, bundle)."""
    yield "blob-digest-changed", changed(bundle, ["messageSignature", "messageDigest", "digest"], text(bytes(32)))
    yield "blob-digest-missing", changed(bundle, ["messageSignature", "messageDigest"], None)
    yield "blob-digest-of-sha1", changed(bundle, ["messageSignature", "messageDigest", "algorithm"], "SHA1")
    yield "blob-signature-missing", changed(bundle, ["messageSignature", "signature"], None)
    yield "blob-signature-empty", changed(bundle, ["messageSignature", "signature"], "")


def flipped(content):
    """Base64 text of bytes of which the last has another bit."""
    raw = base64.b64decode(content)
    return text(raw[:-1] + bytes([raw[-1] ^ 1]))


def identities(bundle, other, work):
    """Yields altered bundles of a signature by identity, as (name, bundle)."""
    def read(name):
        return [{"signedTimestamp": text((work / f"{name}.tsr").read_bytes())}]

    material, entry = ["verificationMaterial"], ["verificationMaterial", "tlogEntries", 0]
    proof, stamps = [*entry, "inclusionProof"], [*material, "timestampVerificationData"]
    good = bundle["verificationMaterial"]["tlogEntries"][0]
    theirs = other["verificationMaterial"]["tlogEntries"][0]
    note = good["inclusionProof"]["checkpoint"]["envelope"]
    body, signature = note.rsplit(" ", 1)
    yield "certificate-of-another", changed(bundle, [*material, "certificate"], other["verificationMaterial"]["certificate"])
    yield "certificate-cut", changed(bundle, [*material, "certificate", "rawBytes"], text(
        base64.b64decode(bundle["verificationMaterial"]["certificate"]["rawBytes"])[:-1]))
    yield "certificate-flipped", changed(bundle, [*material, "certificate", "rawBytes"], flipped(
        bundle["verificationMaterial"]["certificate"]["rawBytes"]))
    yield "signature-of-another", changed(bundle, ["dsseEnvelope", "signatures"], other["dsseEnvelope"]["signatures"])
    yield "payload-changed", changed(bundle, ["dsseEnvelope", "payload"], text(
        base64.b64decode(bundle["dsseEnvelope"]["payload"]) + b" "))
    yield "entries-none", changed(bundle, [*material, "tlogEntries"], [])
    yield "entry-of-another", changed(bundle, [*material, "tlogEntries"], [theirs])
    yield "entry-twice-one-without-proof", changed(bundle, [*material, "tlogEntries"], [
        good, {name: value for name, value in good.items() if name != "inclusionProof"}])
    yield "entry-body-flipped", changed(bundle, [*entry, "canonicalizedBody"], flipped(good["canonicalizedBody"]))
    yield "entry-index-changed", changed(bundle, [*entry, "logIndex"], str(int(good.get("logIndex", 0)) + 1))
    yield "entry-log-changed", changed(bundle, [*entry, "logId", "keyId"], flipped(good["logId"]["keyId"]))
    yield "proof-missing", changed(bundle, proof, None)
    yield "proof-of-another", changed(bundle, proof, theirs["inclusionProof"])
    yield "proof-with-another-hash", changed(bundle, [*proof, "hashes"], [text(bytes(32))])
    yield "checkpoint-missing", changed(bundle, [*proof, "checkpoint"], None)
    yield "checkpoint-flipped", changed(bundle, [*proof, "checkpoint", "envelope"], f"{body} {flipped(signature.strip())}\n")
    yield "checkpoint-of-another-tree", changed(bundle, [*proof, "checkpoint", "envelope"], "\n".join(
        text(bytes(32)) if at == 2 else line for at, line in enumerate(note.split("\n"))))
    yield "checkpoint-unsigned", changed(bundle, [*proof, "checkpoint", "envelope"], note[:note.index("\n\n") + 2])
    yield "timestamps-none", changed(bundle, stamps, None)
    yield "timestamp-of-another", changed(bundle, stamps, other["verificationMaterial"]["timestampVerificationData"])
    yield "timestamp-anew", changed(bundle, [*stamps, "rfc3161Timestamps"], read("now"))
    yield "timestamp-late", changed(bundle, [*stamps, "rfc3161Timestamps"], read("late"))
    yield "timestamp-strange", changed(bundle, [*stamps, "rfc3161Timestamps"], read("strange"))
    yield "timestamps-one-late", changed(bundle, [*stamps, "rfc3161Timestamps"], read("now") + read("late"))


def roots(root, work):
    """Yields altered trust roots, as (name, root)."""
    pem = (work / "strangers.crt").read_text()
    strange = {"rawBytes": "".join(pem.split("-----")[2].split())}
    past = {"start": "2019-01-01T00:00:00Z", "end": "2019-01-02T00:00:00Z"}
    yield "another-authority", changed(root, ["certificateAuthorities", 0, "certChain", "certificates"], [strange])
    yield "another-timestamp-authority", changed(root, ["timestampAuthorities", 0, "certChain", "certificates"], [strange])
    yield "no-timestamp-authority", changed(root, ["timestampAuthorities"], [])
    for part, name in (("certificateAuthorities", "authority"), ("timestampAuthorities", "timestamp-authority")):
        yield f"{name}-of-the-past", changed(root, [part, 0, "validFor"], past)
    for part, name in (("tlogs", "log"), ("ctlogs", "certificate-log")):
        other = root["ctlogs" if part == "tlogs" else "tlogs"][0]["publicKey"]["rawBytes"]
        yield f"{name}-with-another-key", changed(root, [part, 0, "publicKey", "rawBytes"], other)
        yield f"{name}-of-the-past", changed(root, [part, 0, "publicKey", "validFor"], past)


def bundle_in(name):
    return json.loads(base64.b64decode(json.loads(Path(name).read_text())["bundle"]))


def alter_keys(image, blob, key, folder):
    image, folder = bundle_in(image), Path(folder)
    for name, bundle in [*envelopes(image), *blobs(bundle_in(blob))]:
        write(folder, name, bundle)
    for name, statement in statements(base64.b64decode(image["dsseEnvelope"]["payload"])):
        payload = statement if isinstance(statement, str) else json.dumps(statement)
        write(folder, name, signed(image, key, payload.encode()))


def alter_identity(image, other, work, folder):
    for name, bundle in identities(bundle_in(image), bundle_in(other), Path(work)):
        write(Path(folder), name, bundle)


def alter_roots(root, work, folder):
    for name, altered in roots(json.loads(Path(root).read_text()), Path(work)):
        (Path(folder) / f"{name}.json").write_text(json.dumps(altered, indent=1) + "\n")


def print_signature(image):
    sys.stdout.buffer.write(base64.b64decode(bundle_in(image)["dsseEnvelope"]["signatures"][0]["sig"]))


if __name__ == "__main__":
    {"keys": alter_keys, "identity": alter_identity, "roots": alter_roots, "signature": print_signature}[sys.argv[1]](*sys.argv[2:])
