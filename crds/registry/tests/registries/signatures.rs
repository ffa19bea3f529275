//! Signatures of cosign's, in both forms, at registries with and without the list of referrers.

use std::process::Command;

use sockeye_image::{Digest, SignatureKind, SignatureManifest, fixtures::object};

use crate::start::{Registry, run, tools};

/// Runs cosign in a registry's folder, without any server of sigstore's.
fn cosign(registry: &Registry, arguments: &[&str]) {
    let mut command = Command::new(&tools().cosign);
    let folder = registry.folder.path();
    run(command.args(arguments).current_dir(folder).env("HOME", folder).env("COSIGN_PASSWORD", ""));
}

/// Pushes an object, and returns the digest of its image.
async fn push(registry: &Registry) -> Digest {
    registry.file("guard.bpf.o", &object(b"signed"));
    let layer = "guard.bpf.o:application/vnd.sockeye.bpf.object.v1";
    let name = format!("{}/team/guard:v1", registry.authority);
    registry.oras(&["push", "--plain-http", "--artifact-type", "application/vnd.sockeye.bpf.v1", &name, layer]);
    registry.client().resolve(&registry.image("team/guard:v1")).await.unwrap()
}

async fn signatures(registry: &Registry, digest: &Digest) -> Vec<SignatureManifest> {
    registry.client().signatures(&registry.image("team/guard:v1"), std::slice::from_ref(digest)).await.unwrap()
}

/// Signs by a key, and returns the signatures that are found.
async fn sign(registry: &Registry, digest: &Digest, form: &str) -> Vec<SignatureManifest> {
    let image = format!("{}/team/guard@{digest}", registry.authority);
    let offline = ["--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "--key", "cosign.key"];
    cosign(registry, &[&["sign", "--yes", form], &offline[..], &[image.as_str()]].concat());
    signatures(registry, digest).await
}

#[tokio::test]
async fn what_cosign_pushes_is_found() {
    for registry in [Registry::plain(), Registry::with_referrers()] {
        let digest = push(&registry).await;
        assert_eq!(signatures(&registry, &digest).await, []);
        cosign(&registry, &["generate-key-pair"]);
        let [bundle] = sign(&registry, &digest, "--new-bundle-format=true").await.try_into().unwrap();
        let SignatureKind::Bundle(bytes) = &bundle.kind else { panic!("{bundle:?}") };
        let bytes: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        assert!(bytes["mediaType"].as_str().unwrap().contains("sigstore.bundle") && bytes["dsseEnvelope"].is_object());
        let found = sign(&registry, &digest, "--new-bundle-format=false").await;
        assert!(found.contains(&bundle) && found.iter().all(|found| found.subject == digest), "{found:?}");
        let [SignatureKind::SimpleSigning { payload, signature, certificate, .. }] =
            found.iter().map(|found| &found.kind).filter(|kind| **kind != bundle.kind).collect::<Vec<_>>()[..]
        else {
            panic!("{found:?}")
        };
        let payload = String::from_utf8(payload.clone()).unwrap();
        assert!(payload.contains(digest.as_str()) && !signature.is_empty() && certificate.is_none(), "{payload}");
    }
}

#[tokio::test]
async fn what_oras_attaches_is_read_and_is_no_signature() {
    for registry in [Registry::plain(), Registry::with_referrers()] {
        let digest = push(&registry).await;
        let image = format!("{}/team/guard@{digest}", registry.authority);
        registry.file("sbom.json", b"{}");
        let sbom =
            ["attach", "--plain-http", "--artifact-type", "application/spdx+json", &image, "sbom.json:text/json"];
        registry.oras(&sbom);
        assert_eq!(signatures(&registry, &digest).await, []);
        let bundle = "sbom.json:application/vnd.dev.sigstore.bundle.v0.3+json";
        registry.oras(&[
            "attach",
            "--plain-http",
            "--artifact-type",
            "application/vnd.oci.empty.v1+json",
            &image,
            bundle,
        ]);
        let kinds: Vec<_> = signatures(&registry, &digest).await.into_iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [SignatureKind::Bundle(b"{}".to_vec())]);
    }
}
