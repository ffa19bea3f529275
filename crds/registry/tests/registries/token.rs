//! Issues tokens for docker-registry (distribution, docs/content/spec/auth/jwt.md), to whoever knows the password.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::json;

use crate::{
    certificate::Authority,
    server::{Seen, Server, answer, ok},
    start::{TLS, USER},
};

/// A server that issues tokens.
pub struct Issuer {
    server: Server,
    issued: Arc<AtomicUsize>,
}

impl Issuer {
    /// Starts it with the certificate for 127.0.0.1, which is also what it signs with.
    pub async fn start(authority: &Arc<Authority>) -> Self {
        let (issued, signer) = (Arc::new(AtomicUsize::new(0)), Arc::clone(authority));
        let count = issued.clone();
        let server = Server::tls(authority.server(), move |seen| {
            let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", USER.0, USER.1)));
            match &seen.authorization {
                Some(shown) if *shown != basic => return answer(401, &[], b""),
                Some(_) => _ = count.fetch_add(1, Ordering::SeqCst),
                None => {}
            }
            let token = token(&signer, seen);
            ok("application/json", json!({"token": token, "expires_in": 300}).to_string().as_bytes())
        })
        .await;
        Self { server, issued }
    }

    /// Returns the issuer's host and port.
    pub fn authority(&self) -> String {
        self.server.authority.clone()
    }

    /// Returns how many tokens were issued to who knows the password.
    pub fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }

    /// Returns the part of docker-registry's configuration that is about tokens and TLS.
    pub fn configuration(&self) -> String {
        format!(
            "{TLS}auth:\n  token:\n    realm: https://{}/token\n    service: docker\n    issuer: tests\n    \
             rootcertbundle: FOLDER/ca.pem\n",
            self.server.authority
        )
    }
}

/// Returns a token for the scope that is asked for; for nothing, without a password.
fn token(signer: &Authority, seen: &Seen) -> String {
    let query = seen.line.split_once('?').map_or("", |(_, query)| query).replace("%3A", ":").replace("%2F", "/");
    let query = query.replace("%2C", ",");
    let scope = query.split('&').find_map(|parameter| parameter.strip_prefix("scope=repository:"));
    let access = scope.and_then(|scope| scope.split_once(':')).filter(|_| seen.authorization.is_some());
    let access = access.map(|(name, actions)| {
        json!({"type": "repository", "name": name, "actions": actions.split(',').collect::<Vec<_>>()})
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&signer.certificate)]});
    let claims = json!({"iss": "tests", "sub": USER.0, "aud": "docker", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": "x", "access": access.into_iter().collect::<Vec<_>>()});
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &signer.key, &random).unwrap();
    format!("{text}.{}", encode(key.sign(&random, text.as_bytes()).unwrap().as_ref()))
}
