//! `crds`: creates, upgrades or deletes the CustomResourceDefinitions. IO: requests.
//!
//! It never replaces a newer definition: an old schema would drop the newer one's fields from every object that is
//! written. A roll-back of the release runs no `crds` command and its manifest has no definition, so it changes none.

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

/// The time between two requests about a definition.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A definition is not served, or not gone.
#[derive(Debug, thiserror::Error)]
#[error("CustomResourceDefinition {name}: {reason} (waited {} s)", .waited.as_secs())]
pub struct Error {
    name: String,
    reason: String,
    waited: Duration,
}

/// The end of waiting.
#[derive(Clone, Copy)]
struct Deadline {
    start: Instant,
    timeout: Duration,
}

/// Creates or upgrades the definitions, and waits until the API server serves them.
pub async fn install(client: Client, timeout: Duration) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let deadline = Deadline { start: Instant::now(), timeout };
    for definition in definitions() {
        let name = definition.name_any();
        let mut is_written = false;
        loop {
            let reason = match install_one(&api, &definition, &mut is_written).await {
                Ok(None) => break,
                Ok(Some(reason)) => reason,
                Err(error) => message(error),
            };
            deadline.wait(&name, reason).await?;
        }
    }
    Ok(())
}

/// Writes a definition once. Returns the reason if the API server does not serve it yet.
async fn install_one(
    api: &Api<CustomResourceDefinition>,
    ours: &CustomResourceDefinition,
    is_written: &mut bool,
) -> Result<Option<String>, kube::Error> {
    let name = ours.name_any();
    let mut found = api.get_opt(&name).await?;
    if !*is_written {
        match found.as_ref().and_then(|found| newer_version(found, ours)) {
            Some(version) => warn!(name, %version, "kept the definition: it is of a newer version of sockeye"),
            None => {
                // Force takes over fields that Helm, kubectl or a GitOps tool applied before.
                let ours = Patch::Apply(ours);
                found = Some(api.patch(&name, &PatchParams::apply(MANAGER).force(), &ours).await?);
                info!(name, "applied");
            }
        }
        *is_written = true;
    }
    Ok(found.as_ref().map_or_else(|| Some("somebody deleted it".to_owned()), not_served))
}

/// Deletes the definitions, and with them all their objects, and waits until they are gone.
pub async fn remove(client: Client, timeout: Duration) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let deadline = Deadline { start: Instant::now(), timeout };
    for definition in definitions() {
        let name = definition.name_any();
        loop {
            let reason = match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(error) => message(error),
                Ok(_) => "objects of it are still there".to_owned(),
            };
            deadline.wait(&name, reason).await?;
        }
        info!(name, "deleted");
    }
    Ok(())
}

impl Deadline {
    /// Waits before the next request, or fails for `reason`.
    async fn wait(self, name: &str, reason: String) -> Result<(), Error> {
        let waited = self.start.elapsed();
        if waited >= self.timeout {
            return Err(Error { name: name.to_owned(), reason, waited });
        }
        sleep(POLL_INTERVAL).await;
        Ok(())
    }
}

/// Returns the API server's message alone.
fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        error => error.to_string(),
    }
}

/// Returns the version of the definition found, if it is newer than ours. One without a version is older.
fn newer_version(found: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> Option<Version> {
    let version = |definition: &CustomResourceDefinition| {
        definition.annotations().get(ANNOTATION_VERSION).and_then(|version| Version::parse(version).ok())
    };
    let found = version(found)?;
    version(ours).is_none_or(|ours| found > ours).then_some(found)
}

/// Returns the reason if the API server does not serve a definition.
fn not_served(definition: &CustomResourceDefinition) -> Option<String> {
    if definition.metadata.deletion_timestamp.is_some() {
        return Some("it is being deleted".to_owned());
    }
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut reason = "it is not Established".to_owned();
    for condition in conditions {
        match (condition.type_.as_str(), condition.status.as_str()) {
            ("Established", "True") => return None,
            ("NamesAccepted", "False") => reason = condition.message.clone().unwrap_or(reason),
            _ => {}
        }
    }
    Some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(version: Option<&str>) -> CustomResourceDefinition {
        let mut definition = definitions().remove(0);
        let annotations = definition.annotations_mut();
        annotations.remove(ANNOTATION_VERSION);
        annotations.extend(version.map(|version| (ANNOTATION_VERSION.to_owned(), version.to_owned())));
        definition
    }

    #[test]
    fn only_a_newer_definition_is_kept() {
        let kept = |found, ours| newer_version(&definition(found), &definition(Some(ours))).is_some();
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
    fn a_definition_is_served_once_established() {
        let with = |conditions| {
            let mut definition = definition(None);
            let status = json!({"conditions": conditions, "acceptedNames": {"kind": "", "plural": ""}});
            definition.status = serde_json::from_value(status).unwrap();
            definition
        };
        let established = with(json!([{"type": "Established", "status": "True"}]));
        assert_eq!(not_served(&established), None);
        assert!(not_served(&definition(None)).is_some());
        let taken = json!([{"type": "NamesAccepted", "status": "False", "message": "sbpf is taken"},
            {"type": "Established", "status": "False"}]);
        assert_eq!(not_served(&with(taken)).as_deref(), Some("sbpf is taken"));
    }
}
