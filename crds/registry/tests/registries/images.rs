//! Images as the public tools push them: pulled, and followed from their digest to the object.

use std::{process::Command, sync::Arc};

use sockeye_image::{Architecture, Digest, Format, Image, Limits, fixtures::object, verify_chain};
use sockeye_registry::{Client, Error, RegistrySettings, Settings};
use tempfile::TempDir;

use crate::{
    certificate::Authority,
    start::{Registry, USER, run, secret, write_certificates},
    token::Issuer,
};

/// As docs/images.md has it.
const ARTIFACT: &str = "application/vnd.sockeye.bpf.v1";
const LAYER: &str = "guard.bpf.o:application/vnd.sockeye.bpf.object.v1";

async fn pulled(client: &Client, registry: &Registry, name: &str) -> Vec<(Architecture, Image)> {
    let image = registry.image(name);
    let digest = client.resolve(&image).await.unwrap();
    let images = client.pull(&image, &digest).await.unwrap();
    for image in images.values() {
        let layer = image.layer.as_ref().unwrap();
        let index = image.index.as_deref();
        let object = verify_chain(&digest, index, &image.manifest, layer, &Limits::default());
        assert_eq!(object.as_ref(), Ok(&image.object));
    }
    images.into_iter().collect()
}

/// Pushes with what the registry needs.
fn push(registry: &Registry, name: &str, with: &[&str], files: &[&str]) {
    let reference = format!("{}/{name}", registry.authority);
    registry.oras(&[&["push"], with, &[reference.as_str()], files].concat());
}

#[tokio::test]
async fn an_artifact_is_pulled_as_the_page_says_to_push_it() {
    for registry in [Registry::plain(), Registry::with_referrers()] {
        let object = object(b"pushed by oras");
        registry.file("guard.bpf.o", &object);
        push(&registry, "team/guard:v1", &["--plain-http", "--artifact-type", ARTIFACT], &[LAYER]);
        let [(architecture, image)] = pulled(&registry.client(), &registry, "team/guard:v1").await.try_into().unwrap();
        assert!(architecture.is_any());
        assert_eq!((image.format, image.object), (Format::Artifact, object));
    }
}

#[tokio::test]
async fn an_index_is_pulled_as_the_page_says_to_push_it() {
    let registry = Registry::plain();
    for name in ["amd64", "arm64"] {
        registry.file("guard.bpf.o", &object(name.as_bytes()));
        let platform = format!("linux/{name}");
        let with = ["--plain-http", "--artifact-type", ARTIFACT, "--artifact-platform", &platform];
        push(&registry, &format!("team/guard:v1-{name}"), &with, &[LAYER]);
    }
    let list = format!("{}/team/guard:v1", registry.authority);
    registry.oras(&["manifest", "index", "create", "--plain-http", &list, "v1-amd64", "v1-arm64"]);
    let images = pulled(&registry.client(), &registry, "team/guard:v1").await;
    let objects: Vec<_> = images.iter().map(|(name, image)| (name.as_str(), image.object.clone())).collect();
    assert_eq!(objects, [("amd64", object(b"amd64")), ("arm64", object(b"arm64"))]);
}

#[tokio::test]
async fn images_of_bpfmans_specification_are_pulled() {
    let registry = Registry::plain();
    let object = object(&[7; 5000]);
    registry.file("pass.bpf.o", &object);
    let tar = "tar --owner=0 --group=0 -c ./pass.bpf.o | gzip -n >layer.tar.gz";
    run(Command::new("sh").arg("-c").arg(tar).current_dir(registry.folder.path()));
    // The labels of the specification's first version, and those of bpfman's own builder.
    for (tag, labels) in [
        ("v1", r#"{"io.ebpf.program_type":"xdp","io.ebpf.filename":"pass.bpf.o","io.ebpf.program_name":"pass"}"#),
        ("v2", r#"{"io.ebpf.programs":"{\"pass\":\"xdp\"}","io.ebpf.maps":"{}"}"#),
    ] {
        let config = format!(r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{labels}}}}}"#);
        registry.file("config.json", config.as_bytes());
        let with = ["--plain-http", "--config", "config.json:application/vnd.oci.image.config.v1+json"];
        let layer = "layer.tar.gz:application/vnd.oci.image.layer.v1.tar+gzip";
        push(&registry, &format!("team/pass:{tag}"), &with, &[layer]);
        let [(_, image)] = pulled(&registry.client(), &registry, &format!("team/pass:{tag}")).await.try_into().unwrap();
        assert_eq!((image.format, &image.object), (Format::Bpfman, &object));
    }
}

/// As docs/developer-guide/shipping-bytecode.md of bpfman has it, with the labels of its own builder.
const CONTAINERFILE: &str = r#"FROM scratch
COPY pass.bpf.o pass.bpf.o
LABEL "io.ebpf.programs"="{\"pass\":\"xdp\"}"
LABEL "io.ebpf.maps"="{\"counts\":\"per_cpu_array\"}"
"#;

#[tokio::test]
async fn images_that_buildah_builds_for_bpfman_are_pulled() {
    let registry = Registry::plain();
    let object = object(&[7; 5000]);
    registry.file("pass.bpf.o", &object);
    registry.file("Containerfile", CONTAINERFILE.as_bytes());
    let folder = registry.folder.path();
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.current_dir(folder).args(["--root", "storage", "--runroot", "run", "--storage-driver", "vfs"]);
        run(command.args(arguments).env("BUILDAH_ISOLATION", "chroot").env("HOME", folder));
    };
    for format in ["oci", "docker"] {
        let name = format!("{}/team/pass:{format}", registry.authority);
        buildah(&["build", "--quiet", "--format", format, "-t", &name, "."]);
        buildah(&["push", "--quiet", "--tls-verify=false", &name]);
        let pulled = pulled(&registry.client(), &registry, &format!("team/pass:{format}")).await;
        let [(_, image)] = pulled.try_into().unwrap();
        assert_eq!((image.format, &image.object), (Format::Bpfman, &object), "{format}");
        let manifest = String::from_utf8(image.manifest).unwrap();
        assert_eq!(manifest.contains("application/vnd.docker.distribution.manifest.v2+json"), format == "docker");
    }
}

#[tokio::test]
async fn gadgets_are_pulled() {
    let registry = Registry::plain();
    let object = object(b"gadget");
    registry.file("program.o", &object);
    registry.file("program.wasm", b"\0asm");
    registry.file("metadata.yaml", b"name: guard\n");
    let with = ["--plain-http", "--config", "metadata.yaml:application/vnd.gadget.config.v1+yaml"];
    let layers = [
        "program.o:application/vnd.gadget.ebpf.program.v1+binary",
        "program.wasm:application/vnd.gadget.wasm.program.v1+binary",
    ];
    push(&registry, "gadget/guard:v1", &with, &layers);
    let [(_, image)] = pulled(&registry.client(), &registry, "gadget/guard:v1").await.try_into().unwrap();
    assert_eq!((image.format, image.object), (Format::InspektorGadget, object));
}

#[tokio::test]
async fn a_registry_with_tls_and_users_is_pulled_from() {
    let authority = Authority::new(None);
    let registry = Registry::with_tls_and_users(&authority);
    let object = object(b"secret");
    registry.file("guard.bpf.o", &object);
    let with = ["--ca-file", "ca.pem", "-u", USER.0, "-p", USER.1, "--artifact-type", ARTIFACT];
    push(&registry, "team/guard:v1", &with, &[LAYER]);
    let settings =
        Settings { authorities: authority.pem.clone().into_bytes(), system_authorities: false, ..Settings::default() };
    let client = Client::new(settings).unwrap();
    let allowed = client.with_credentials(secret(&registry.authority));
    let [(_, image)] = pulled(&allowed, &registry, "team/guard:v1").await.try_into().unwrap();
    assert_eq!(image.object, object);
    let error = client.resolve(&registry.image("team/guard:v1")).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { has_secret: false, .. }), "{error}");
    let error = allowed.resolve(&registry.image("team/guard:v2")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let error = allowed.pull(&registry.image("team/guard:v1"), &Digest::of(b"x")).await.unwrap_err().to_string();
    assert!(error.contains("is not there"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_whose_tokens_are_issued_elsewhere_is_pulled_from() {
    let authority = Arc::new(Authority::new(None));
    let issuer = Issuer::start(&authority).await;
    let folder = TempDir::new().unwrap();
    write_certificates(&folder, &authority);
    let registry = Registry::docker(folder, &issuer.configuration());
    let object = object(b"by token");
    registry.file("guard.bpf.o", &object);
    let with = ["--ca-file", "ca.pem", "-u", USER.0, "-p", USER.1, "--artifact-type", ARTIFACT];
    push(&registry, "team/guard:v1", &with, &[LAYER]);
    let before = issuer.issued();
    let settings = |realm_hosts| Settings {
        authorities: authority.pem.clone().into_bytes(),
        system_authorities: false,
        registries: [(registry.authority.clone(), RegistrySettings { insecure: false, realm_hosts })].into(),
        ..Settings::default()
    };
    let client = Client::new(settings(vec![issuer.authority()])).unwrap();
    let allowed = client.with_credentials(secret(&registry.authority));
    let [(_, image)] = pulled(&allowed, &registry, "team/guard:v1").await.try_into().unwrap();
    assert_eq!(image.object, object);
    assert_eq!(issuer.issued() - before, 1);
    let error = client.resolve(&registry.image("team/guard:v1")).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { has_secret: false, .. }), "{error}");
    // The realm is another host, which nobody named.
    let strict = Client::new(settings(Vec::new())).unwrap().with_credentials(secret(&registry.authority));
    let error = strict.resolve(&registry.image("team/guard:v1")).await;
    assert!(matches!(error, Err(Error::Realm { .. })), "{error:?}");
}
