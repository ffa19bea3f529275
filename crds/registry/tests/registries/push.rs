//! Images that `push` makes, on real registries: this client and oras pull them.

use std::{collections::BTreeMap, sync::Arc};

use sockeye_image::{Digest, Format, Packed, fixtures::object};
use sockeye_registry::{Client, Error, RegistrySettings, Settings};
use tempfile::TempDir;

use crate::{
    certificate::Authority,
    start::{Registry, secret, write_certificates},
    token::Issuer,
};

/// Pushes an image, and pulls it by the digest and by the tag.
async fn push_and_pull(client: &Client, registry: &Registry, name: &str, packed: &Packed) -> (Format, Vec<u8>) {
    let image = registry.image(name);
    let digest = client.push(&image, packed).await.unwrap();
    assert_eq!(digest, Digest::of(&packed.manifest));
    assert_eq!(client.resolve(&image).await.unwrap(), digest);
    let images = client.pull(&image, &digest).await.unwrap();
    let (_, image) = images.into_iter().next().unwrap();
    (image.format, image.object)
}

#[tokio::test]
async fn both_formats_are_pushed_and_pulled() {
    for registry in [Registry::plain(), Registry::with_referrers()] {
        let object = object(b"guard");
        let labels: BTreeMap<String, String> = [("io.ebpf.programs".to_owned(), "{}".to_owned())].into();
        let client = registry.client();
        let artifact = Packed::artifact(&object, "guard.bpf.o");
        let pulled = push_and_pull(&client, &registry, "team/guard:v1", &artifact).await;
        assert_eq!(pulled, (Format::Artifact, object.clone()));
        let bpfman = Packed::bpfman(&object, "guard.bpf.o", &labels);
        let pulled = push_and_pull(&client, &registry, "team/guard:bpfman", &bpfman).await;
        assert_eq!(pulled, (Format::Bpfman, object.clone()));
        // Again: the blobs are there, and the manifest is the same.
        push_and_pull(&client, &registry, "team/guard:v1", &artifact).await;
        let name = format!("{}/team/guard:v1", registry.authority);
        registry.oras(&["pull", "--plain-http", &name]);
        assert_eq!(std::fs::read(registry.folder.path().join("guard.bpf.o")).unwrap(), object);
    }
}

#[tokio::test]
async fn a_registry_with_tls_and_users_is_pushed_to() {
    let authority = Authority::new(None);
    let registry = Registry::with_tls_and_users(&authority);
    let authorities = authority.pem.clone().into_bytes();
    let client = Client::new(Settings { authorities, system_authorities: false, ..Settings::default() }).unwrap();
    let packed = Packed::artifact(&object(b"secret"), "guard.bpf.o");
    let error = client.push(&registry.image("team/guard:v1"), &packed).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { has_secret: false, .. }), "{error}");
    let allowed = client.with_credentials(secret(&registry.authority));
    push_and_pull(&allowed, &registry, "team/guard:v1", &packed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_whose_tokens_are_issued_elsewhere_is_pushed_to() {
    let authority = Arc::new(Authority::new(None));
    let issuer = Issuer::start(&authority).await;
    let folder = TempDir::new().unwrap();
    write_certificates(&folder, &authority);
    let registry = Registry::docker(folder, &issuer.configuration());
    let own = RegistrySettings { insecure: false, realm_hosts: vec![issuer.authority()] };
    let settings = Settings {
        authorities: authority.pem.clone().into_bytes(),
        system_authorities: false,
        registries: [(registry.authority.clone(), own)].into(),
        ..Settings::default()
    };
    let client = Client::new(settings).unwrap().with_credentials(secret(&registry.authority));
    let packed = Packed::artifact(&object(b"by token"), "guard.bpf.o");
    push_and_pull(&client, &registry, "team/guard:v1", &packed).await;
    assert!(issuer.issued() > 0);
}
