//! Events about the origin of a new revision's object: a tag that means another image, and an object that the policy
//! objects to and lets run. IO: none.

use sockeye_crds::{BpfRevision, Reason};
use sockeye_ebpf::Accepted;

use crate::events::ProgramEvent;

/// Returns the Events for a revision that follows another one, or none.
pub fn origin_events(before: Option<&BpfRevision>, next: &BpfRevision, accepted: &Accepted) -> Vec<ProgramEvent> {
    let image = |revision: &'_ BpfRevision| revision.spec.template.image.clone();
    let moved = before
        .and_then(image)
        .zip(image(next))
        .filter(|(old, new)| old.reference == new.reference && old.digest != new.digest);
    let moved = moved.map(|(old, new)| ProgramEvent {
        is_warning: false,
        reason: "ImageChanged".to_owned(),
        action: "Pull",
        note: format!(
            "{} means {} now; it meant {}; dispatched as {}",
            new.reference,
            new.digest,
            old.digest,
            next.metadata.name.as_deref().unwrap_or_default()
        ),
        quoted: vec![],
    });
    let warning = accepted.origin.warning.as_deref().map(warning_event);
    moved.into_iter().chain(warning).collect()
}

/// Returns the Event for an object that the policy objects to and lets run.
pub fn warning_event(warning: &str) -> ProgramEvent {
    ProgramEvent {
        is_warning: true,
        reason: Reason::SignatureRequired.as_str().to_owned(),
        action: "Verify",
        note: format!("{warning}; it runs all the same, because the policy only warns"),
        quoted: vec![],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sockeye_crds::provenance::{Origin, RevisionImage};

    use super::*;

    fn revision(image: Option<(&str, &str)>) -> BpfRevision {
        let object = json!({"programs": [], "maps": [], "license": "GPL", "btf": true});
        let template = json!({"digest": "sha256:0", "object": object, "programs": []});
        let spec = json!({"state": "Active", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1,
            "sequence": 2, "template": template});
        let mut revision = BpfRevision::of(serde_json::from_value(spec).unwrap());
        revision.spec.template.image =
            image.map(|(reference, digest)| RevisionImage { reference: reference.into(), digest: digest.into() });
        revision
    }

    fn accepted(warning: Option<&str>) -> Accepted {
        let bytes = sockeye_ebpf::programs::builtin(sockeye_crds::Builtin::TcpRtt);
        let spec = json!({"bytecode": {"builtin": "tcp-rtt"},
            "programs": [{"name": "measure", "attach": [{"type": "Node"}]}]});
        let accepted = sockeye_ebpf::check::check(&serde_json::from_value(spec).unwrap(), bytes).unwrap();
        let origin = Origin { warning: warning.map(str::to_owned), ..Origin::default() };
        Accepted { origin, ..accepted }
    }

    fn reasons(before: Option<&BpfRevision>, next: &BpfRevision, warning: Option<&str>) -> Vec<String> {
        origin_events(before, next, &accepted(warning)).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn a_tag_that_means_another_image_is_an_event_and_another_tag_is_none() {
        let (one, two) = (revision(Some(("r/a:v1", "sha256:1"))), revision(Some(("r/a:v1", "sha256:2"))));
        assert_eq!(reasons(Some(&one), &two, None), ["ImageChanged"]);
        let note = &origin_events(Some(&one), &two, &accepted(None))[0].note;
        assert_eq!(note, "r/a:v1 means sha256:2 now; it meant sha256:1; dispatched as p-2");
        let (same, other) = (one.clone(), revision(Some(("r/a:v2", "sha256:2"))));
        for before in [None, Some(&same), Some(&other), Some(&revision(None))] {
            assert!(reasons(before, &one, None).is_empty());
        }
    }

    #[test]
    fn an_object_that_the_policy_only_warns_of_is_a_warning() {
        let events = origin_events(None, &revision(None), &accepted(Some("rule \"r\" requires a signature")));
        assert!(events[0].is_warning && events[0].note.starts_with("rule \"r\" requires"), "{events:?}");
        assert_eq!(events[0].reason, "SignatureRequired");
    }
}
