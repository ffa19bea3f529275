//! From an image's digest to its object: what each format needs, and that no link of the chain can be exchanged.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use proptest::prelude::*;
use serde_json::{Value, json};
use sockeye_image::{
    Architecture, Digest, Error, Format, Limits,
    chain::{read_document, read_manifest},
    fixtures::{CONFIG, TAR_GZIP, artifact, bpfman, descriptor, entry, gadget, gzip, index, manifest, object, tar},
    format::{GADGET_OBJECT, OBJECT, ObjectLayer},
    manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Document},
    verify_chain,
};

fn layer_of(object: &[u8]) -> Vec<u8> {
    gzip(&tar(&[entry(b'0', "pass.bpf.o", object)]))
}

fn format_of(manifest: &[u8]) -> Result<Format, Error> {
    let manifest = read_manifest(&Digest::of(manifest), manifest, &Limits::default())?;
    ObjectLayer::of(&manifest, &Limits::default()).map(|layer| layer.format)
}

/// Returns a manifest with one of its fields changed.
fn changed(manifest: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = serde_json::from_slice(manifest).unwrap();
    change(&mut value);
    value.to_string().into_bytes()
}

#[test]
fn each_format_gives_its_object_with_and_without_an_index() {
    let object = object(b"program");
    for (manifest, layer, format) in [
        (artifact(&object), object.clone(), Format::Artifact),
        (gadget(&object), object.clone(), Format::InspektorGadget),
        (bpfman(&layer_of(&object)), layer_of(&object), Format::Bpfman),
    ] {
        assert_eq!(format_of(&manifest), Ok(format));
        let limits = Limits::default();
        assert_eq!(verify_chain(&Digest::of(&manifest), None, &manifest, &layer, &limits).as_ref(), Ok(&object));
        let index = index(&[("linux/arm64", b"other"), ("linux/amd64", &manifest)]);
        assert_eq!(verify_chain(&Digest::of(&index), Some(&index), &manifest, &layer, &limits).as_ref(), Ok(&object));
    }
}

#[test]
fn no_link_of_the_chain_can_be_exchanged() {
    let (ours, theirs) = (object(b"ours"), object(b"thei"));
    let (manifest, other) = (artifact(&ours), artifact(&theirs));
    let list = index(&[("linux/amd64", &manifest)]);
    let (digest, limits) = (Digest::of(&list), Limits::default());
    let verify = |index, manifest, layer| verify_chain(&digest, index, manifest, layer, &limits);
    assert!(verify(Some(&list), &manifest, &ours).is_ok());
    assert!(matches!(verify(Some(&list), &manifest, &theirs), Err(Error::WrongDigest { .. })));
    assert!(verify(Some(&list), &other, &theirs).unwrap_err().to_string().contains("does not list the manifest"));
    let other_list = index(&[("linux/amd64", &other)]);
    assert!(matches!(verify(Some(&other_list), &other, &theirs), Err(Error::WrongDigest { .. })));
    assert!(matches!(verify(None, &manifest, &ours), Err(Error::WrongDigest { .. })));
    // An index is no manifest, nor a manifest an index.
    assert!(verify(None, &list, &ours).unwrap_err().to_string().contains("an index where a manifest"));
    let digest = Digest::of(&manifest);
    let error = verify_chain(&digest, Some(&manifest), &manifest, &ours, &limits).unwrap_err().to_string();
    assert!(error.contains("a manifest where an index"), "{error}");
}

#[test]
fn a_descriptor_with_another_size_is_refused() {
    let object = object(b"x");
    let wrong = changed(&artifact(&object), |manifest| manifest["layers"][0]["size"] = json!(object.len() + 1));
    let error = verify_chain(&Digest::of(&wrong), None, &wrong, &object, &Limits::default());
    assert!(matches!(error, Err(Error::WrongSize { .. })));
    let manifest = artifact(&object);
    let list = changed(&index(&[("linux/amd64", &manifest)]), |index| index["manifests"][0]["size"] = json!(1));
    let error = verify_chain(&Digest::of(&list), Some(&list), &manifest, &object, &Limits::default());
    assert!(matches!(error, Err(Error::WrongSize { .. })));
}

#[test]
fn manifests_of_docker_are_read_alike() {
    let object = object(b"x");
    let layer = layer_of(&object);
    let docker = changed(&bpfman(&layer), |manifest| {
        manifest["mediaType"] = json!(DOCKER_MANIFEST);
        manifest["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
        manifest["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
    });
    let list = changed(&index(&[("linux/amd64", &docker)]), |index| {
        index["mediaType"] = json!(DOCKER_INDEX);
        index["manifests"][0]["mediaType"] = json!(DOCKER_MANIFEST);
    });
    let limits = Limits::default();
    assert_eq!(verify_chain(&Digest::of(&list), Some(&list), &docker, &layer, &limits), Ok(object));
    let Ok(Document::Index(list)) = read_document(&Digest::of(&list), &list, &limits) else { panic!("no index") };
    assert_eq!(list.images(&Architecture::supported()).unwrap().len(), 1);
    // A gadget's manifest names no type of its own.
    let untyped = changed(&gadget(b"x"), |manifest| _ = manifest.as_object_mut().unwrap().remove("mediaType"));
    assert_eq!(format_of(&untyped), Ok(Format::InspektorGadget));
}

#[test]
fn images_of_no_format_are_refused_with_what_to_do() {
    let object = object(b"x");
    let layers = |layers: &[(&str, &[u8])]| manifest(("application/vnd.oci.empty.v1+json", b"{}"), layers);
    let container = |layers: &[(&str, &[u8])]| manifest((CONFIG, b"{}"), layers);
    for (manifest, named) in [
        (layers(&[]), "its layers are nothing; push the object as `oras push"),
        (layers(&[("application/octet-stream", &object)]), "\"application/octet-stream\"; push the object as"),
        (layers(&[(TAR_GZIP, &object)]), "push the object as"),
        (layers(&[(OBJECT, &object), (OBJECT, &object)]), "2 of its layers are objects"),
        (layers(&[(OBJECT, &object), (GADGET_OBJECT, &object)]), "2 of its layers are objects"),
        (container(&[(TAR_GZIP, b"a"), (TAR_GZIP, b"b")]), "a container image with 2 layers"),
        (container(&[]), "a container image with 0 layers"),
        (container(&[("application/vnd.oci.image.layer.v1.tar+zstd", b"a")]), "has to be tar+gzip"),
    ] {
        let error = format_of(&manifest).expect_err(named).to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
    let many: Vec<(&str, &[u8])> = vec![("text/plain\n", b"x"); 1000];
    let error = format_of(&layers(&many)).unwrap_err().to_string();
    assert!(error.contains("and 992 more") && !error.contains('\n') && error.len() < 600, "{error}");
}

#[test]
fn what_could_be_read_as_two_images_is_none() {
    let object = object(b"x");
    let manifest = artifact(&object);
    let both = changed(&manifest, |manifest| manifest["manifests"] = json!([]));
    let text = |bytes: &[u8]| format_of(bytes).unwrap_err().to_string();
    assert!(text(&both).contains("as a manifest and as an index"));
    let typed = changed(&manifest, |manifest| manifest["mediaType"] = json!("application/vnd.oci.image.index.v1+json"));
    assert!(text(&typed).contains("its fields are those of"));
    let twice = String::from_utf8(manifest.clone()).unwrap().replacen('{', "{\"layers\":[],", 1);
    assert!(text(twice.as_bytes()).contains("duplicate field"));
    let old = changed(&manifest, |manifest| manifest["schemaVersion"] = json!(1));
    assert!(text(&old).contains("schemaVersion is not 2"));
    for bytes in [&b"{}"[..], b"[]", b"", b"\0", b"{\"schemaVersion\":2}", b"{\"schemaVersion\":2,\"layers\":[]}"] {
        assert!(matches!(format_of(bytes), Err(Error::Manifest { .. })), "{bytes:?}");
    }
    let deep = format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(format_of(deep.as_bytes()), Err(Error::Manifest { .. })));
}

#[test]
fn an_index_is_read_by_architecture() {
    let read = |entries: &[(&str, &[u8])]| {
        let bytes = index(entries);
        let Ok(Document::Index(index)) = read_document(&Digest::of(&bytes), &bytes, &Limits::default()) else {
            panic!("no index")
        };
        let images = index.images(&Architecture::supported())?;
        Ok(images.into_iter().map(|(name, image)| (name.as_str().to_owned(), image.digest.clone())).collect::<Vec<_>>())
    };
    let of = |bytes: &[u8]| Digest::of(bytes).to_string();
    let own = |name: &str, bytes: &[u8]| (name.to_owned(), of(bytes));
    let both = read(&[("linux/arm64", b"a"), ("linux/s390x", b"b"), ("windows/amd64", b"c"), ("linux/amd64", b"d")]);
    assert_eq!(both, Ok::<_, Error>(vec![own("amd64", b"d"), own("arm64", b"a")]));
    // The first one of an architecture, and one for any.
    let first = read(&[("linux/arm64", b"a"), ("linux/arm64", b"b"), ("", b"c")]);
    assert_eq!(first, Ok(vec![own("", b"c"), own("arm64", b"a")]));
    let unreadable = read(&[("linux/AMD 64", b"a"), ("linux/amd64", b"b")]);
    assert_eq!(unreadable, Ok(vec![own("amd64", b"b")]), "a name that is none does not stand for any");
    let error = read(&[("linux/s390x", b"a"), ("unknown/unknown", b"b")]).unwrap_err().to_string();
    assert!(error.contains("linux on amd64 or arm64; it has linux/s390x, unknown/unknown"), "{error}");
    assert!(read(&[]).unwrap_err().to_string().contains("it has nothing"));
    assert!(read(&[("", b"a"), ("", b"b")]).unwrap_err().to_string().contains("several images without a platform"));
    // An index within an index is no image.
    let nested = changed(&index(&[("linux/amd64", b"a")]), |index| {
        index["manifests"][0]["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
    });
    let Ok(Document::Index(nested)) = read_document(&Digest::of(&nested), &nested, &Limits::default()) else {
        panic!()
    };
    assert!(nested.images(&Architecture::supported()).is_err());
}

#[test]
fn sizes_beyond_the_limits_are_refused_before_anything_is_fetched() {
    let huge = |size: u64, manifest: &[u8]| changed(manifest, |manifest| manifest["layers"][0]["size"] = json!(size));
    for manifest in [huge((1 << 20) + 1, &artifact(b"x")), huge((64 << 20) + 1, &bpfman(b"x"))] {
        assert!(matches!(format_of(&manifest), Err(Error::TooLarge { .. })));
    }
    for size in [json!(-1), json!(1.5), json!("1"), json!(1e30)] {
        let odd = changed(&artifact(b"x"), |manifest| manifest["layers"][0]["size"] = size);
        assert!(matches!(format_of(&odd), Err(Error::Manifest { .. })));
    }
    let other = changed(&artifact(b"x"), |manifest| manifest["layers"][0]["digest"] = json!("sha512:00"));
    assert!(matches!(format_of(&other), Err(Error::Digest(_))));
    let padded = [artifact(b"x"), vec![b' '; 4 << 20]].concat();
    assert!(matches!(format_of(&padded), Err(Error::TooLarge { .. })));
}

#[test]
fn an_artifact_that_is_no_elf_is_refused() {
    let text = b"#!/bin/sh\n";
    let manifest = artifact(text);
    let error =
        verify_chain(&Digest::of(&manifest), None, &manifest, text, &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("is no ELF object: it begins with \"#!/bin/sh\\n\""), "{error}");
}

proptest! {
    /// Whatever is stored in an image's place, the object that comes out is the image's own.
    #[test]
    fn changed_bytes_never_give_another_object(at in any::<prop::sample::Index>(), byte in any::<u8>(), part in 0..3) {
        let object = object(b"the one that was signed");
        let layer = layer_of(&object);
        let manifest = bpfman(&layer);
        let list = index(&[("linux/amd64", &manifest)]);
        let digest = Digest::of(&list);
        let mut stored = [list, manifest, layer];
        let changed = &mut stored[part as usize];
        let at = at.index(changed.len());
        let is_same = changed[at] == byte;
        changed[at] = byte;
        let [list, manifest, layer] = &stored;
        match verify_chain(&digest, Some(list), manifest, layer, &Limits::default()) {
            Ok(found) => prop_assert!(is_same && found == object),
            Err(_) => prop_assert!(!is_same),
        }
    }

    /// Bytes of any kind are refused or read, and never end the process.
    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..2000), piece in 1usize..600) {
        let _ = read_document(&Digest::of(&bytes), &bytes, &Limits::default());
        let archive = tar(&[entry(b'0', "x", &object(b"x")), bytes.clone()]);
        for layer in [gzip(&archive), [gzip(&[]), bytes.clone()].concat(), bytes] {
            let manifest = bpfman(&layer);
            let manifest = read_manifest(&Digest::of(&manifest), &manifest, &Limits::default()).unwrap();
            let found = ObjectLayer::of(&manifest, &Limits::default()).unwrap();
            let mut extractor = sockeye_image::layer::Extractor::new(found, &Limits::default());
            for piece in layer.chunks(piece) {
                extractor.push(piece).unwrap();
            }
            let _ = extractor.finish();
        }
    }
}

#[test]
fn descriptors_are_those_of_the_bytes() {
    let described = descriptor(OBJECT, b"");
    assert_eq!(described["digest"], "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
