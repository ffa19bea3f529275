#!/usr/bin/env python3
"""hostile.py LOG ADDRESS PORT...: registries that do harm, one a port, over plain HTTP. The first part of a repository's name is
what is done to whoever asks for it. LOG gets a line for each request that carries credentials: port and path.

Whoever is asked is the local cluster's operator, by tests/tests/hostile_registry.rs.
"""

import gzip
import hashlib
import io
import json
import socketserver
import struct
import sys
import tarfile
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OBJECT = "application/vnd.sockeye.bpf.object.v1"
PACKED = "application/vnd.oci.image.layer.v1.tar+gzip"
GIBIBYTE = 1 << 30


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def manifest(layer, media_type, size=None, config=b"{}", config_type="application/vnd.oci.empty.v1+json"):
    def described(content, kind, length=None):
        return {"mediaType": kind, "digest": digest(content), "size": length or len(content)}

    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.sockeye.bpf.v1",
                       "config": described(config, config_type), "layers": [described(layer, media_type, size)]}).encode()


CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": {"io.ebpf.program_type": "sockops"}}}).encode()


def packed(*members):
    """A layer with members as (name, type, content)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def of_bpfman(layer, size=None):
    return manifest(layer, PACKED, size, CONFIG, "application/vnd.oci.image.config.v1+json")


def bomb():
    """A gibibyte of zeros after the head of a member that claims it, in a megabyte: one compressed piece, repeated."""
    member = tarfile.TarInfo("program.o")
    member.size = GIBIBYTE
    head, piece = zlib.compressobj(wbits=31), zlib.compressobj(level=9, wbits=-15)
    packed_head = head.compress(member.tobuf()) + head.flush(zlib.Z_FULL_FLUSH)
    return packed_head + (piece.compress(bytes(16 << 20)) + piece.flush(zlib.Z_FULL_FLUSH)) * (GIBIBYTE >> 24)


SMALL = b"\x7fELF" + bytes(60)
BOMB = bomb()
OUTSIDE = packed(("../../program.o", tarfile.REGTYPE, SMALL), ("link.o", tarfile.SYMTYPE, b""), ("hard.o", tarfile.LNKTYPE, b""),
                 ("device.o", tarfile.CHRTYPE, b""), ("pipe.o", tarfile.FIFOTYPE, b""))
# What a repository serves where it serves anything: its manifest and its layer.
CONTENT = {
    "huge-layer": (manifest(SMALL, OBJECT, 5_000_000_000), SMALL),
    "lying-layer": (manifest(SMALL, OBJECT), None),
    "outside": (of_bpfman(OUTSIDE), OUTSIDE),
    "bomb": (of_bpfman(BOMB), BOMB),
    "wrong-layer": (manifest(SMALL, OBJECT), SMALL[::-1]),
    "moved-tag": (manifest(SMALL, OBJECT), SMALL),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    counts = {}
    lock = threading.Lock()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        port = self.server.server_address[1]
        if self.headers.get("Authorization"):
            with self.lock, open(LOG, "a") as log:
                log.write(f"{port} {self.path}\n")
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[0] != "v2":
            return self.elsewhere(parts)
        name = parts[1] if len(parts) > 1 else ""
        behaviour = getattr(self, name.replace("-", "_"), None)
        if behaviour:
            return behaviour(parts)
        if name not in CONTENT:
            return self.reply(404, b"{}")
        self.content(name, parts)

    def reply(self, code, body=b"", **headers):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def content(self, name, parts):
        described, layer = CONTENT[name]
        if parts[-2] == "manifests":
            return self.reply(200, described, Content_Type=MANIFEST, Docker_Content_Digest=digest(described))
        if parts[-1] == digest(CONFIG):
            return self.reply(200, CONFIG)
        if layer is None:
            return self.endless(200)
        self.reply(200, layer)

    def endless(self, code):
        self.send_response(code)
        self.send_header("Content-Type", MANIFEST)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = b" " * (64 << 10)
        while self.command != "HEAD":
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def endless_manifest(self, _):
        self.endless(200)

    def endless_error(self, _):
        self.endless(500)

    def endless_token(self, _):
        realm = f'Bearer realm="http://{self.headers["Host"]}/endless",service="s",scope="repository:x:pull"'
        self.reply(401, b"{}", WWW_Authenticate=realm)

    def foreign_realm(self, _):
        host = self.server.server_address[0]
        self.reply(401, b"{}", WWW_Authenticate=f'Bearer realm="http://{host}:{PORTS[-1]}/collect",service="s"')

    def elsewhere(self, parts):
        if parts[0] == "endless":
            return self.endless(200)
        self.reply(200, json.dumps({"token": "collected"}).encode())

    def redirects(self, _):
        self.reply(307, b"", Location=self.path + ("&" if "?" in self.path else "?") + "again")

    def stalls(self, _):
        time.sleep(600)

    def resets(self, _):
        self.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: close with a reset
        self.close_connection = True
        self.connection.close()

    def busy(self, _):
        self.reply(429, b"{}", Retry_After="3600")

    def broken(self, _):
        self.reply(500, b'{"errors": [{"code": "UNKNOWN", "message": "broken\\u001b[31m"}]}')

    def moved_tag(self, parts):
        """Another manifest at each request for the tag."""
        with self.lock:
            self.counts["moved"] = self.counts.get("moved", 0) + 1
            moved = CONTENT["moved-tag"][0] + b" " * self.counts["moved"]
        if parts[-2] == "manifests" and not parts[-1].startswith("sha256:"):
            return self.reply(200, moved, Content_Type=MANIFEST, Docker_Content_Digest=digest(moved))
        # What the tag was resolved to is never what is served.
        self.content("moved-tag", parts)

    def wrong_digest(self, _):
        self.reply(200, CONTENT["moved-tag"][0], Content_Type=MANIFEST, Docker_Content_Digest="sha256:" + 64 * "0")

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_):
        """Whoever was asked goes away."""


LOG, ADDRESS, *PORTS = sys.argv[1:]
for port in PORTS:
    server = Server((ADDRESS, int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
