//! The outcomes of pulls.

use std::{fs, path::Path};

use sockeye_crds::{Reason, names};
use sockeye_crds_testing::provoked;
use sockeye_operator::images::{
    key::ImageKey,
    pulled::{Outcome, PulledImage},
    pulls::Job,
};
use sockeye_provenance::fixtures::{Key, image, index, packed_image};
use sockeye_signature::Evidence;

use crate::{job, object, other_object, pull, puller, registry::Registry};

fn pulled(outcome: Outcome) -> PulledImage {
    match outcome {
        Outcome::Pulled(image) => image.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

fn failed(outcome: Outcome) -> (Reason, String) {
    match outcome {
        Outcome::Failed { refusal, .. } => (refusal.reason, refusal.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn images_of_both_kinds_give_the_object_and_what_a_signature_covers() {
    let registry = Registry::start().await;
    for (tag, image) in [("plain", image(object())), ("packed", packed_image(object()))] {
        let pulled = pulled(pull(&registry, job(&registry.push("team/guard", tag, object(), &image))).await);
        assert_eq!((&pulled.digest, pulled.objects.len()), (&image.digest, 1));
        assert_eq!(pulled.repository, format!("{}/team/guard", registry.host));
        let found = &pulled.objects[0];
        assert_eq!((&*found.bytes, &*found.digest), (object(), &*names::digest(object())));
        assert_eq!(*found.manifest, *image.archive.manifest);
        assert_eq!(found.layer.as_deref(), image.archive.layer.as_deref(), "a layer that is the object is kept once");
        assert!(found.architecture.is_empty());
    }
}

#[tokio::test]
async fn an_index_gives_one_object_if_all_are_the_same_and_otherwise_one_for_each_architecture() {
    let registry = Registry::start().await;
    let (one, other) = (image(object()), image(other_object()));
    let same = index(&[("amd64", &one), ("arm64", &one)], 0);
    let found = pulled(pull(&registry, job(&registry.push("a", "same", object(), &same))).await);
    assert_eq!((found.objects.len(), &*found.objects[0].architecture), (1, ""));
    let images = [("amd64", &one), ("arm64", &other)];
    registry.push("a", "other", other_object(), &index(&images, 1));
    let differing = index(&images, 0);
    let found = pulled(pull(&registry, job(&registry.push("a", "differing", object(), &differing))).await);
    let objects: Vec<_> = found.objects.iter().map(|object| (&*object.architecture, &*object.bytes)).collect();
    assert_eq!(objects, [("amd64", object()), ("arm64", other_object())]);
    assert_eq!(found.index.as_deref(), differing.archive.index.as_deref());
}

#[tokio::test]
async fn an_architecture_that_an_index_leaves_out_has_the_object_for_any_or_none() {
    let registry = Registry::start().await;
    let (one, other) = (image(object()), image(other_object()));
    let lone = index(&[("amd64", &one)], 0);
    let found = pulled(pull(&registry, job(&registry.push("a", "lone", object(), &lone))).await);
    let objects: Vec<_> = found.objects.iter().map(|object| (&*object.architecture, &*object.bytes)).collect();
    assert_eq!(objects, [("amd64", object())], "it is not for arm64");
    let mut mixed = index(&[("amd64", &one), ("arm64", &other)], 0);
    registry.push("a", "other", other_object(), &index(&[("arm64", &other)], 0));
    let text = String::from_utf8(mixed.archive.index.clone().unwrap()).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["manifests"][1].as_object_mut().unwrap().remove("platform");
    mixed.archive.index = Some(value.to_string().into_bytes());
    let found = pulled(pull(&registry, job(&registry.push("a", "mixed", object(), &mixed))).await);
    let objects: Vec<_> = found.objects.iter().map(|object| (&*object.architecture, &*object.bytes)).collect();
    assert_eq!(objects, [("amd64", object()), ("arm64", other_object())]);
}

#[tokio::test]
async fn only_a_tag_that_means_something_else_is_pulled_again() {
    let registry = Registry::start().await;
    let (one, other) = (image(object()), image(other_object()));
    let reference = registry.push("a", "v1", object(), &one);
    registry.take_requests();
    let known = Job { known: [one.digest.clone()].into(), ..job(&reference) };
    assert_eq!(pull(&registry, known.clone()).await, Outcome::Known(one.digest.clone()));
    assert!(registry.take_requests().iter().all(|path| path.ends_with("/manifests/v1")));
    registry.push("a", "v1", other_object(), &other);
    assert_eq!(pulled(pull(&registry, known).await).digest, other.digest);
    let key = ImageKey { pinned: Some(one.digest.clone()), ..job(&reference).key };
    let pinned = pulled(pull(&registry, Job { key, known: [].into(), digest: None }).await);
    assert_eq!(pinned.digest, one.digest, "what was resolved before is not resolved again");
}

#[tokio::test]
async fn signatures_beside_the_image_are_pulled_if_a_policy_asks_for_any() {
    let registry = Registry::start().await;
    let image = image(object());
    let reference = registry.push("a", "v1", object(), &image);
    let Evidence::Bundle(bundle) = Key::new(1).sign_image(&image.digest) else { panic!("no bundle") };
    registry.push_bundle("a", &image.digest, &bundle);
    assert_eq!(pulled(pull(&registry, job(&reference)).await).signatures.len(), 1);
    registry.take_requests();
    let without = puller(&registry, Path::new("/nonexistent"), false).pull(job(&reference)).await;
    let without = pulled(without);
    assert_eq!((without.signatures.len(), without.objects[0].manifest.len()), (0, 0));
    assert!(registry.take_requests().iter().all(|path| !path.contains("sha256-") && !path.contains("referrers")));
}

#[tokio::test]
async fn credentials_are_those_of_the_mounted_secret() {
    let registry = Registry::start().await;
    let reference = registry.push("a", "v1", object(), &image(object()));
    registry.want_authorization("Basic YWxpY2U6c2VjcmV0");
    let folder = tempfile::tempdir().unwrap();
    let with_secret = |secret: &str| {
        let key = ImageKey { secret: Some(secret.to_owned()), ..job(&reference).key };
        puller(&registry, folder.path(), false).pull(Job { key, known: [].into(), digest: None })
    };
    let (reason, message) = failed(with_secret("team").await);
    assert_eq!(reason, Reason::ImagePullFailed);
    assert!(message.contains("pullSecretRef: no Secret team") && message.contains("images.pullSecrets"), "{message}");
    provoked(reason, &message);
    fs::create_dir(folder.path().join("team")).unwrap();
    let auth = serde_json::json!({"auths": {&registry.host: {"username": "alice", "password": "secret"}}});
    fs::write(folder.path().join("team/config.json"), auth.to_string()).unwrap();
    pulled(with_secret("team").await);
    for escape in ["../team", "team/../team", ".."] {
        assert!(failed(with_secret(escape).await).1.contains("no Secret"), "{escape}");
    }
    let (reason, message) = failed(pull(&registry, job(&reference)).await);
    assert_eq!(reason, Reason::ImagePullFailed);
    assert!(message.contains("pull secret"), "{message}");
    provoked(reason, &message);
}

#[tokio::test]
async fn what_is_no_image_is_told_apart_from_what_is_not_there() {
    let registry = Registry::start().await;
    let (reason, message) = failed(pull(&registry, job(&format!("{}/a:nonesuch", registry.host))).await);
    assert_eq!(reason, Reason::ImagePullFailed);
    assert!(message.starts_with("spec.bytecode.image: ") && message.contains("nonesuch"), "{message}");
    provoked(reason, &message);
    let reference = registry.push("a", "gone", object(), &image(object()));
    registry.set_away(true);
    let (reason, message) = failed(pull(&registry, job(&reference)).await);
    assert_eq!(reason, Reason::ImagePullFailed);
    assert!(message.contains(&registry.host), "{message}");
    registry.set_away(false);
    let mut broken = image(object());
    broken.archive.manifest = b"{\"schemaVersion\": 2}".to_vec();
    let (reason, message) = failed(pull(&registry, job(&registry.push("a", "v1", object(), &broken))).await);
    assert_eq!(reason, Reason::InvalidImage, "{message}");
    provoked(reason, &message);
    let (reason, message) = failed(pull(&registry, job("guard:v1")).await);
    assert_eq!(reason, Reason::InvalidSpec, "{message}");
    provoked(reason, &message);
}
