//! `definitions`: brings the CustomResourceDefinitions of this version to a cluster, and never an older one over a newer:
//! an old schema would drop the fields that the newer one has, from every object that is written. IO: reads and writes
//! the three definitions.
//!
//! The chart runs this before an installation and an upgrade. A roll-back does not run it, and has no definition in its
//! manifest; so it changes none.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use semver::Version;
use sockeye_crds::definitions::{ANNOTATION_VERSION, definitions};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// The field manager of the definitions.
const MANAGER: &str = "sockeye-crds";

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a definition is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("CustomResourceDefinition {name}: {why} (waited {} s)", .waited.as_secs())]
pub struct Error {
    name: String,
    why: String,
    waited: Duration,
}

/// Creates or upgrades the definitions, and waits until the API server serves them.
pub async fn install(client: Client, patience: Duration) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let start = Instant::now();
    for ours in definitions() {
        let name = ours.name_any();
        let mut written = false;
        loop {
            let why = match install_one(&api, &ours, &mut written).await {
                Ok(None) => break,
                Ok(Some(why)) => why,
                Err(error) => words(error),
            };
            pause(&name, why, start, patience).await?;
        }
    }
    Ok(())
}

/// Why the definition is not served yet, if so.
async fn install_one(
    api: &Api<CustomResourceDefinition>,
    ours: &CustomResourceDefinition,
    written: &mut bool,
) -> Result<Option<String>, kube::Error> {
    let name = ours.name_any();
    let mut found = api.get_opt(&name).await?;
    if !*written {
        match found.as_ref().and_then(|found| newer(found, ours)) {
            Some(version) => warn!(name, %version, "left as it is: it is of a newer version of sockeye"),
            None => {
                // By force: what Helm, kubectl or a GitOps tool applied before is taken over.
                let ours = Patch::Apply(ours);
                found = Some(api.patch(&name, &PatchParams::apply(MANAGER).force(), &ours).await?);
                info!(name, "applied");
            }
        }
        *written = true;
    }
    Ok(found.as_ref().map_or_else(|| Some("it is gone again".to_owned()), unserved))
}

/// Deletes the definitions, and with them every object of theirs, and waits until they are gone.
pub async fn remove(client: Client, patience: Duration) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let start = Instant::now();
    for definition in definitions() {
        let name = definition.name_any();
        loop {
            let why = match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(error) => words(error),
                Ok(_) => "objects of it are still there".to_owned(),
            };
            pause(&name, why, start, patience).await?;
        }
        info!(name, "gone");
    }
    Ok(())
}

async fn pause(name: &str, why: String, start: Instant, patience: Duration) -> Result<(), Error> {
    let waited = start.elapsed();
    if waited >= patience {
        return Err(Error { name: name.to_owned(), why, waited });
    }
    sleep(PAUSE).await;
    Ok(())
}

/// What the API server said, without all that surrounds it.
fn words(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        error => error.to_string(),
    }
}

/// The version of the definition found, where it is newer than ours. One that names none is older.
fn newer(found: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> Option<Version> {
    let version = |definition: &CustomResourceDefinition| {
        definition.annotations().get(ANNOTATION_VERSION).and_then(|version| Version::parse(version).ok())
    };
    let found = version(found)?;
    version(ours).is_none_or(|ours| found > ours).then_some(found)
}

/// Why the API server does not serve a definition, if so.
fn unserved(definition: &CustomResourceDefinition) -> Option<String> {
    if definition.metadata.deletion_timestamp.is_some() {
        return Some("it is being deleted".to_owned());
    }
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut why = "it is not Established".to_owned();
    for condition in conditions {
        match (condition.type_.as_str(), condition.status.as_str()) {
            ("Established", "True") => return None,
            ("NamesAccepted", "False") => why = condition.message.clone().unwrap_or(why),
            _ => {}
        }
    }
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(version: Option<&str>) -> CustomResourceDefinition {
        let mut definition = definitions().remove(0);
        let annotations = definition.annotations_mut();
        annotations.remove(ANNOTATION_VERSION);
        annotations.extend(version.map(|version| (ANNOTATION_VERSION.to_owned(), version.to_owned())));
        definition
    }

    #[test]
    fn only_a_newer_definition_is_left_as_it_is() {
        let kept = |found, ours| newer(&of(found), &of(Some(ours))).is_some();
        assert!(kept(Some("0.10.0"), "0.9.3"));
        assert!(kept(Some("1.0.0"), "1.0.0-rc.1"));
        assert!(!kept(Some("0.9.3"), "0.10.0"));
        assert!(!kept(Some("0.1.0"), "0.1.0"), "the same version is applied again: it may have been edited");
        assert!(!kept(None, "0.1.0"));
        assert!(!kept(Some("yesterday's"), "0.1.0"));
    }

    #[test]
    fn every_definition_names_a_version_that_can_be_compared() {
        for definition in definitions() {
            assert!(Version::parse(&definition.annotations()[ANNOTATION_VERSION]).is_ok());
        }
    }

    #[test]
    fn served_means_established_and_to_stay() {
        let with = |conditions| {
            let mut definition = of(None);
            let status = json!({"conditions": conditions, "acceptedNames": {"kind": "", "plural": ""}});
            definition.status = serde_json::from_value(status).unwrap();
            definition
        };
        let established = with(json!([{"type": "Established", "status": "True"}]));
        assert_eq!(unserved(&established), None);
        assert!(unserved(&of(None)).is_some());
        let taken = json!([{"type": "NamesAccepted", "status": "False", "message": "sbpf is taken"},
            {"type": "Established", "status": "False"}]);
        assert_eq!(unserved(&with(taken)).as_deref(), Some("sbpf is taken"));
    }
}
