#!/usr/bin/python3
"""An OIDC issuer on loopback, as far as Fulcio asks it: its configuration and its key.

    issuer.py serve URL KEY.pem            answers at URL until it is ended
    issuer.py token URL KEY.pem EMAIL      prints a token that lets Fulcio certify EMAIL

KEY.pem is an RSA key of `openssl genrsa`.
"""

import base64
import http.server
import json
import subprocess
import sys
import time
from urllib.parse import urlsplit


def text(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def openssl(*arguments, **options):
    return subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.PIPE, **options).stdout


def serve(url, key):
    modulus = bytes.fromhex(openssl("rsa", "-in", key, "-noout", "-modulus").decode().strip().split("=")[1])
    answers = {
        "/.well-known/openid-configuration": {
            "issuer": url, "jwks_uri": f"{url}/keys", "authorization_endpoint": f"{url}/auth", "token_endpoint": f"{url}/token",
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        },
        "/keys": {"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": text(modulus), "e": "AQAB"}]},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(self.path)
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    at = urlsplit(url)
    http.server.ThreadingHTTPServer((at.hostname, at.port), Handler).serve_forever()


def token(url, key, email):
    now = int(time.time())
    claims = {"iss": url, "sub": email, "aud": "sigstore", "iat": now, "exp": now + 600, "email": email, "email_verified": True}
    signed = ".".join(text(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "1", "typ": "JWT"}, claims))
    signature = openssl("dgst", "-sha256", "-sign", key, input=signed.encode())
    print(f"{signed}.{text(signature)}")


if __name__ == "__main__":
    {"serve": serve, "token": token}[sys.argv[1]](*sys.argv[2:])
