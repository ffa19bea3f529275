//! `Access`: one thing that an identity may or may not do, asked of the API server's authorizer by SubjectAccessReview.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use sockeye_tests::identity::{RELEASE, admin};

use crate::{
    chart::install,
    clients::bind,
    needs::{EVERY_ACCOUNT, EVERYBODY, LEASES, NAMESPACES, NEEDS, Need, PEOPLE, UNLISTED, VERBS, need},
};

fn review_of(service_account: &str) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{RELEASE}:{service_account}")),
        groups: Some(vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{RELEASE}"),
            "system:authenticated".to_owned(),
        ]),
        ..SubjectAccessReviewSpec::default()
    }
}

/// Returns the review of a person who has no group but the one of all.
fn review_of_person(user: &str) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        user: Some(user.to_owned()),
        groups: Some(vec!["system:authenticated".to_owned()]),
        ..SubjectAccessReviewSpec::default()
    }
}

async fn allowed(client: &Client, spec: SubjectAccessReviewSpec) -> Result<bool> {
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let status = reviews.create(&PostParams::default(), &review).await?.status.context("a review without a status")?;
    ensure!(status.evaluation_error.is_none(), "{status:?}");
    Ok(status.allowed)
}

/// One request that an identity may want to make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Access {
    verb: String,
    group: String,
    resource: String,
    namespace: String,
}

impl Access {
    fn attributes(&self) -> ResourceAttributes {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (self.resource.as_str(), None),
        };
        ResourceAttributes {
            verb: Some(self.verb.clone()),
            group: Some(self.group.clone()),
            resource: Some(resource.to_owned()),
            subresource,
            namespace: Some(self.namespace.clone()),
            ..ResourceAttributes::default()
        }
    }

    /// Returns whether a line of the table has it. A right in the whole cluster is one in each namespace.
    fn is_needed(&self, needs: &[&[Need]]) -> bool {
        needs.iter().copied().flatten().any(|need| {
            need.group == self.group
                && need.resource == self.resource
                && (need.namespace.is_empty() || need.namespace == self.namespace)
                && need.verbs.contains(&self.verb.as_str())
        })
    }
}

/// Lists every resource and subresource that the API server serves: (group, name, namespaced).
async fn resources(client: &Client) -> Result<BTreeSet<(String, String, bool)>> {
    let mut all = BTreeSet::from(UNLISTED.map(|(group, name, namespaced)| (group.into(), name.into(), namespaced)));
    let mut lists = vec![(String::new(), client.list_core_api_resources("v1").await?)];
    for group in client.list_api_groups().await?.groups {
        for version in group.versions {
            lists.push((group.name.clone(), client.list_api_group_resources(&version.group_version).await?));
        }
    }
    for (group, list) in lists {
        all.extend(list.resources.into_iter().map(|resource| (group.clone(), resource.name, resource.namespaced)));
    }
    Ok(all)
}

/// Lists everything that may be asked about.
async fn everything(client: &Client) -> Result<BTreeSet<Access>> {
    let mut asked = BTreeSet::new();
    for (group, resource, namespaced) in resources(client).await? {
        for verb in VERBS {
            for namespace in if namespaced { &NAMESPACES[..] } else { &[""] } {
                asked.insert(Access {
                    verb: verb.to_owned(),
                    group: group.clone(),
                    resource: resource.clone(),
                    namespace: (*namespace).to_owned(),
                });
            }
        }
    }
    Ok(asked)
}

/// Fails unless of all that is asked about an identity may do what it needs and nothing else.
async fn exactly(
    client: &Client,
    asked: &BTreeSet<Access>,
    review: &SubjectAccessReviewSpec,
    needs: &[&[Need]],
) -> Result<()> {
    for need in needs.iter().copied().flatten() {
        for verb in need.verbs {
            let access = Access {
                verb: (*verb).to_owned(),
                group: need.group.to_owned(),
                resource: need.resource.to_owned(),
                namespace: need.namespace.to_owned(),
            };
            ensure!(asked.contains(&access), "the API server has no {access:?}: the table is wrong");
        }
    }
    let wrong = stream::iter(asked)
        .map(|access| async move {
            let resource_attributes = Some(access.attributes());
            let spec = SubjectAccessReviewSpec { resource_attributes, ..review.clone() };
            Ok::<_, anyhow::Error>((access, allowed(client, spec).await?))
        })
        .buffer_unordered(16)
        .try_filter(|(access, allowed)| std::future::ready(*allowed != access.is_needed(needs)))
        .try_collect::<BTreeMap<_, _>>()
        .await?;
    let user = review.user.as_deref().unwrap_or_default();
    ensure!(wrong.is_empty(), "{user}, with whether the API server allows it: {wrong:#?}");
    println!("{user}: asked for {} and allowed what it needs alone", asked.len());
    Ok(())
}

#[tokio::test]
async fn each_identity_has_exactly_the_rights_it_needs() -> Result<()> {
    install()?;
    let client = admin().await?;
    let asked = everything(&client).await?;
    for (identity, needs) in NEEDS {
        exactly(&client, &asked, &review_of(identity), &[needs, &EVERYBODY, &EVERY_ACCOUNT]).await?;
    }
    Ok(())
}

/// The editor, too, may not use the kill switch, write statuses, or write what agents run.
#[tokio::test]
async fn viewers_and_editors_have_exactly_the_rights_they_need() -> Result<()> {
    install()?;
    let client = admin().await?;
    let asked = everything(&client).await?;
    for (role, needs) in PEOPLE {
        let user = format!("rights-{role}");
        bind(&client, &user, role).await?;
        exactly(&client, &asked, &review_of_person(&user), &[needs, &EVERYBODY]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_crd_job_may_touch_only_the_four_crds() -> Result<()> {
    let ours =
        ["bpfprograms.sockeye.dev", "bpfrevisions.sockeye.dev", "bpfnodes.sockeye.dev", "bpfnodedetails.sockeye.dev"];
    let definitions = need("apiextensions.k8s.io", "customresourcedefinitions", "", &["get", "create", "patch"]);
    by_name("sockeye-crds", &definitions, &ours, "others.example.com").await
}

/// Agents get any ConfigMap of the release namespace by its name, for bytes, and watch the one that suspends
/// everything.
#[tokio::test]
async fn agents_may_watch_only_the_suspend_config_map() -> Result<()> {
    let suspend = need("", "configmaps", RELEASE, &["get", "list", "watch"]);
    by_name("sockeye-agent", &suspend, &["sockeye-suspend"], "").await?;
    let others = need("", "configmaps", RELEASE, &["get"]);
    by_name("sockeye-agent", &others, &["another"], "").await
}

#[tokio::test]
async fn the_operator_may_read_and_change_only_its_own_lease() -> Result<()> {
    let own = need(LEASES, "leases", RELEASE, &["get", "list", "watch", "create", "update"]);
    by_name("sockeye-operator", &own, &["sockeye-operator"], "").await?;
    // RBAC can't limit a creation to a name.
    let others = need(LEASES, "leases", RELEASE, &["create"]);
    by_name("sockeye-operator", &others, &["another"], "").await
}

/// Fails unless an identity may do with the objects `ours` what it needs and nothing else, and nothing with `other` if
/// named.
async fn by_name(identity: &str, needs: &Need, ours: &[&str], other: &str) -> Result<()> {
    install()?;
    let client = admin().await?;
    let others = (!other.is_empty()).then_some((other, false));
    for (name, ours) in ours.iter().map(|name| (*name, true)).chain(others) {
        for verb in VERBS {
            let attributes = ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(needs.group.to_owned()),
                resource: Some(needs.resource.to_owned()),
                namespace: Some(needs.namespace.to_owned()),
                name: Some(name.to_owned()),
                ..ResourceAttributes::default()
            };
            let spec = SubjectAccessReviewSpec { resource_attributes: Some(attributes), ..review_of(identity) };
            let allowed = allowed(&client, spec).await?;
            ensure!(allowed == (ours && needs.verbs.contains(&verb)), "{identity}: {verb} {name}: {allowed}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_paths_but_version_and_health_are_allowed() -> Result<()> {
    install()?;
    let client = admin().await?;
    for (identity, _) in NEEDS {
        for (path, expected) in [
            ("/version", true),
            ("/readyz", true),
            ("/metrics", false),
            ("/logs", false),
            ("/debug/pprof", false),
            ("/configz", false),
            ("/anything", false),
            ("*", false),
        ] {
            for verb in ["get", "post", "*"] {
                let attributes = NonResourceAttributes { path: Some(path.to_owned()), verb: Some(verb.to_owned()) };
                let spec = SubjectAccessReviewSpec { non_resource_attributes: Some(attributes), ..review_of(identity) };
                let allowed = allowed(&client, spec).await?;
                ensure!(allowed == (expected && verb == "get"), "{identity} {verb} {path}: {allowed}");
            }
        }
    }
    Ok(())
}
