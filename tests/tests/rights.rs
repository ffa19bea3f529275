//! Rights, on a real API server: what the chart's identities may do, all of it, and that they may do nothing else; and that
//! an agent speaks for its own node only.
//!
//! KUBECONFIG says where (tests/run.sh starts one: `tests/cluster/cluster.sh api-up DIR`). The chart is rendered by Helm and
//! installed as it is; nothing runs there, so the tests speak as agents and operator with real tokens.
#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::Command,
    sync::Once,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{
    authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::{Node, Pod, Secret, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sockeye_crds::{BpfNode, BpfRevision, names::LABEL_LIVE};
use sockeye_tests::{
    identity::{RELEASE, admin, agent_pod, made, token, with_token},
    run,
};

/// Where what is namespaced is asked for: the release's namespace, the one of events, one of others, and all at once.
const NAMESPACES: [&str; 4] = [RELEASE, "default", "kube-system", ""];

/// What an identity needs, written by hand from what its code asks the API server for. A new right is a new line here.
struct Need {
    group: &'static str,
    resource: &'static str,
    /// A namespace, or "" for the whole cluster.
    namespace: &'static str,
    verbs: &'static [&'static str],
}

const fn need(
    group: &'static str,
    resource: &'static str,
    namespace: &'static str,
    verbs: &'static [&'static str],
) -> Need {
    Need { group, resource, namespace, verbs }
}

const SOCKEYE: &str = "sockeye.dev";
const NEEDS: [(&str, &[Need]); 4] = [
    (
        "sockeye-agent",
        &[
            need(SOCKEYE, "bpfrevisions", "", &["list", "watch"]),
            need(SOCKEYE, "bpfnodes", "", &["get", "list", "watch", "create", "delete"]),
            need(SOCKEYE, "bpfnodes/status", "", &["patch"]),
            need("", "nodes", "", &["list", "watch"]),
            // For targets that pick pods.
            need("", "pods", "", &["list", "watch"]),
            need("", "namespaces", "", &["list", "watch"]),
            need("", "configmaps", RELEASE, &["get"]),
        ],
    ),
    (
        "sockeye-operator",
        &[
            need(SOCKEYE, "bpfprograms", "", &["list", "watch", "patch"]),
            need(SOCKEYE, "bpfprograms/status", "", &["patch"]),
            need(SOCKEYE, "bpfrevisions", "", &["list", "watch", "create", "patch", "delete"]),
            need(SOCKEYE, "bpfnodes", "", &["list", "watch"]),
            need("", "nodes", "", &["list", "watch"]),
            need("", "configmaps", RELEASE, &["get", "list", "watch", "create", "delete"]),
            need("", "pods", RELEASE, &["list", "watch"]),
            need("events.k8s.io", "events", "default", &["create", "patch"]),
        ],
    ),
    // Before an installation or an upgrade; what it may do, it may by name only: see below.
    ("sockeye-crds", &[]),
    // Before an uninstallation.
    (
        "sockeye-uninstall",
        &[
            need(SOCKEYE, "bpfprograms", "", &["list", "delete"]),
            need(SOCKEYE, "bpfnodes", "", &["list"]),
            need("", "configmaps", RELEASE, &["deletecollection"]),
        ],
    ),
];

/// What Kubernetes lets everybody do who is somebody: ask about oneself, and read public certificates.
const EVERYBODY: [Need; 4] = [
    need("certificates.k8s.io", "clustertrustbundles", "", &["get", "list", "watch"]),
    need("authentication.k8s.io", "selfsubjectreviews", "", &["create"]),
    need("authorization.k8s.io", "selfsubjectaccessreviews", "", &["create"]),
    need("authorization.k8s.io", "selfsubjectrulesreviews", "", &["create"]),
];

/// Those of requests, those that authorizers and admission ask about, and the wildcard itself, which only a wildcard grants.
const VERBS: [&str; 16] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "bind",
    "escalate",
    "approve",
    "sign",
    "attest",
    "use",
    "*",
];

/// What is asked for though discovery does not list it.
const UNLISTED: [(&str, &str, bool); 12] = [
    ("*", "*", true),
    ("", "*", true),
    (SOCKEYE, "*", false),
    ("", "users", false),
    ("", "groups", false),
    ("authentication.k8s.io", "userextras/scopes", false),
    ("certificates.k8s.io", "signers", false),
    ("", "nodes/metrics", false),
    ("", "nodes/stats", false),
    ("", "nodes/log", false),
    ("", "nodes/configz", false),
    ("", "nodes/pods", false),
];

/// Installs what Helm renders, once.
fn chart() -> Result<()> {
    static INSTALLED: Once = Once::new();
    let mut outcome = Ok(());
    INSTALLED.call_once(|| outcome = sockeye_tests::chart::install());
    outcome
}

fn review(service_account: &str) -> SubjectAccessReviewSpec {
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

async fn allowed(client: &Client, spec: SubjectAccessReviewSpec) -> Result<bool> {
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let status = reviews.create(&PostParams::default(), &review).await?.status.context("a review without a status")?;
    ensure!(status.evaluation_error.is_none(), "{status:?}");
    Ok(status.allowed)
}

/// One thing that may be asked for.
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

    /// Whether a line of the table says so. What is granted in the whole cluster is granted in each namespace.
    fn needed(&self, needs: &[Need]) -> bool {
        needs.iter().chain(&EVERYBODY).any(|need| {
            need.group == self.group
                && need.resource == self.resource
                && (need.namespace.is_empty() || need.namespace == self.namespace)
                && need.verbs.contains(&self.verb.as_str())
        })
    }
}

/// Every resource and subresource of every group that the API server serves, and whether it is namespaced.
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

#[tokio::test]
async fn each_identity_may_do_what_it_needs_and_nothing_else() -> Result<()> {
    chart()?;
    let client = admin().await?;
    let mut asked = BTreeSet::new();
    for (group, resource, namespaced) in resources(&client).await? {
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
    for (identity, needs) in NEEDS {
        for need in needs {
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
        let client = &client;
        let wrong = stream::iter(&asked)
            .map(|access| async move {
                let resource_attributes = Some(access.attributes());
                let spec = SubjectAccessReviewSpec { resource_attributes, ..review(identity) };
                Ok::<_, anyhow::Error>((access, allowed(client, spec).await?))
            })
            .buffer_unordered(16)
            .try_filter(|(access, allowed)| std::future::ready(*allowed != access.needed(needs)))
            .try_collect::<BTreeMap<_, _>>()
            .await?;
        ensure!(wrong.is_empty(), "{identity}, with whether the API server allows it: {wrong:#?}");
        println!("{identity}: asked for {} and allowed what it needs alone", asked.len());
    }
    Ok(())
}

/// The Job that brings the definitions may touch these three and no others.
#[tokio::test]
async fn definitions_are_brought_by_name() -> Result<()> {
    let ours = ["bpfprograms.sockeye.dev", "bpfrevisions.sockeye.dev", "bpfnodes.sockeye.dev"];
    let definitions = need("apiextensions.k8s.io", "customresourcedefinitions", "", &["get", "create", "patch"]);
    by_name("sockeye-crds", &definitions, &ours, "others.example.com").await
}

/// An agent follows the switch that has everything detached, and no other ConfigMap; it reads any by name.
#[tokio::test]
async fn agents_follow_the_switch_alone() -> Result<()> {
    let switch = need("", "configmaps", RELEASE, &["get", "list", "watch"]);
    by_name("sockeye-agent", &switch, &["sockeye-suspend"], "").await?;
    let others = need("", "configmaps", RELEASE, &["get"]);
    by_name("sockeye-agent", &others, &["another"], "").await
}

/// What an identity may do with single objects: these verbs on these, and nothing on another, where one is named.
async fn by_name(identity: &str, needs: &Need, ours: &[&str], other: &str) -> Result<()> {
    chart()?;
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
            let spec = SubjectAccessReviewSpec { resource_attributes: Some(attributes), ..review(identity) };
            let allowed = allowed(&client, spec).await?;
            ensure!(allowed == (ours && needs.verbs.contains(&verb)), "{identity}: {verb} {name}: {allowed}");
        }
    }
    Ok(())
}

/// Where admission guards owner references (the API server here has OwnerReferencesPermissionEnforcement), the operator's
/// revisions are owned by a BpfProgram that it has no right to update: they do not block its deletion.
#[tokio::test]
async fn the_operator_dispatches_revisions_that_a_bpfprogram_owns() -> Result<()> {
    chart()?;
    let revisions = Api::<BpfRevision>::all(speaking_for("sockeye-operator").await?);
    dispatched(&revisions, "rights-1").await?;
    revisions.delete("rights-1", &DeleteParams::default()).await?;
    Ok(())
}

/// What a cluster's admin does by mistake, who may do everything else.
#[tokio::test]
async fn a_live_revision_is_not_deleted_by_hand() -> Result<()> {
    chart()?;
    let by_hand = Api::<BpfRevision>::all(admin().await?);
    let operator = Api::<BpfRevision>::all(speaking_for("sockeye-operator").await?);
    let collector = as_master("system:serviceaccount:kube-system:generic-garbage-collector", HashMap::new()).await?;
    let collector = Api::<BpfRevision>::all(collector);
    let words =
        "without it the maps of BpfProgram rights would be lost. Set spec.suspend of that BpfProgram, or delete it";
    let (one, all) = (DeleteParams::default(), ListParams::default().labels("sockeye.dev/live=true"));
    for gone_by in [&operator, &collector] {
        dispatched(&operator, "rights-2").await?;
        in_effect(words, || async { by_hand.delete("rights-2", &DeleteParams::default().dry_run()).await.map(drop) })
            .await?;
        refused(by_hand.delete("rights-2", &one).await.map(drop), words)?;
        refused(by_hand.delete_collection(&one, &all).await.map(drop), words)?;
        by_hand.get("rights-2").await.context("it was deleted")?;
        gone_by.delete("rights-2", &one).await?;
    }
    // What agents do not run.
    dispatched(&operator, "rights-2").await?;
    let withdrawn = json!({"metadata": {"labels": {LABEL_LIVE: null}}});
    operator.patch("rights-2", &PatchParams::default(), &Patch::Merge(withdrawn)).await?;
    by_hand.delete("rights-2", &one).await?;
    Ok(())
}

/// A live revision, as the operator makes it.
async fn dispatched(revisions: &Api<BpfRevision>, name: &str) -> kube::Result<BpfRevision> {
    let mut controller = owner("BpfProgram", "rights");
    controller["apiVersion"] = json!("sockeye.dev/v1alpha1");
    controller["controller"] = json!(true);
    let revision = json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
        "metadata": {"name": name, "labels": {LABEL_LIVE: "true"}, "ownerReferences": [controller]},
        "spec": {
            "program": {"name": "rights", "uid": "1"}, "generation": 1, "sequence": 1,
            "digest": format!("sha256:{}", "0".repeat(64)), "object": {"programs": [], "maps": [], "license": "GPL", "btf": true},
            "programs": [{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}],
        },
    });
    revisions.patch(name, &PatchParams::apply("sockeye-operator").force(), &Patch::Apply(&revision)).await
}

#[tokio::test]
async fn paths_that_are_no_resources_are_refused() -> Result<()> {
    chart()?;
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
                let spec = SubjectAccessReviewSpec { non_resource_attributes: Some(attributes), ..review(identity) };
                let allowed = allowed(&client, spec).await?;
                ensure!(allowed == (expected && verb == "get"), "{identity} {verb} {path}: {allowed}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_chart_has_no_identity_or_binding_that_this_table_lacks() -> Result<()> {
    chart()?;
    let ours = |kind: &str| -> Result<Vec<Value>> {
        let selector = "app.kubernetes.io/part-of=sockeye";
        let text = run(Command::new("kubectl").args(["get", kind, "--all-namespaces", "-l", selector, "-o", "json"]))?;
        Ok(serde_json::from_str::<Value>(&text)?["items"].as_array().cloned().unwrap_or_default())
    };
    let known: BTreeSet<String> = NEEDS.iter().map(|(identity, _)| (*identity).to_owned()).collect();
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let accounts: BTreeSet<String> = ours("serviceaccounts")?.iter().map(name).collect();
    ensure!(accounts == known, "{accounts:?}");
    for kind in ["clusterrolebindings", "rolebindings"] {
        for binding in ours(kind)? {
            for subject in binding["subjects"].as_array().context("no subjects")? {
                let expected = json!({"kind": "ServiceAccount", "name": subject["name"], "namespace": RELEASE});
                ensure!(*subject == expected && known.contains(&name(&json!({"metadata": subject}))), "{subject}");
            }
        }
    }
    for kind in ["clusterroles", "roles"] {
        for role in ours(kind)? {
            let text = role["rules"].to_string();
            ensure!(!text.contains("\"*\"") && !text.contains("secrets"), "{kind} {}: {text}", name(&role));
            ensure!(role.get("aggregationRule").is_none(), "{kind} {} takes others' rules", name(&role));
        }
    }
    Ok(())
}

async fn speaking_for(service_account: &str) -> Result<Client> {
    with_token(&token(&admin().await?, RELEASE, service_account, None).await?).await
}

/// Speaks as somebody whom RBAC lets do everything.
async fn as_master(user: &str, extra: HashMap<String, Vec<String>>) -> Result<Client> {
    let mut config = Config::infer().await?;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    config.auth_info.impersonate_user_extra = Some(extra);
    Ok(Client::try_from(config)?)
}

/// Speaks as the agent on a node, with the token that the kubelet there would get for its pod.
async fn agent_on(node: &str) -> Result<Client> {
    let client = admin().await?;
    made(&Api::<Node>::all(client.clone()), json!({"metadata": {"name": node}})).await?;
    let pod = made(&Api::<Pod>::namespaced(client.clone(), RELEASE), agent_pod(node)).await?;
    with_token(&token(&client, RELEASE, "sockeye-agent", Some(&pod)).await?).await
}

fn owner(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "00000000-0000-0000-0000-000000000000"})
}

fn bpf_node(name: &str, owners: &Value) -> Result<BpfNode> {
    let object = json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode",
        "metadata": {"name": name, "ownerReferences": owners}, "spec": {},
    });
    Ok(serde_json::from_value(object)?)
}

const OURS: &str = "rights-a";
const THEIRS: &str = "rights-b";
const NOT_OURS: &str = "the agent on node rights-a may write no BpfNode but its own";
const NOT_OWNED: &str = "a BpfNode is owned by the Node of its name, without blockOwnerDeletion, and by nothing else";

/// The writes that an agent makes, of the BpfNode of that name.
struct Writes {
    api: Api<BpfNode>,
    name: &'static str,
}

impl Writes {
    fn of(client: &Client, name: &'static str) -> Self {
        Self { api: Api::all(client.clone()), name }
    }

    async fn create(&self) -> kube::Result<()> {
        self.create_owned(json!([owner("Node", self.name)])).await
    }

    async fn create_owned(&self, owners: Value) -> kube::Result<()> {
        let object = bpf_node(self.name, &owners).map_err(|error| kube::Error::Service(error.into()))?;
        self.api.create(&PostParams::default(), &object).await.map(drop)
    }

    async fn write_status(&self) -> kube::Result<()> {
        let status = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "metadata": {"name": self.name},
            "status": {"node": {"bootID": "1", "kernelRelease": "6.1.0"}},
        });
        let params = PatchParams::apply("sockeye-agent").force();
        self.api.patch_status(self.name, &params, &Patch::Apply(&status)).await.map(drop)
    }

    async fn patch(&self, metadata: Value) -> kube::Result<()> {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        self.api.patch(self.name, &PatchParams::default(), &patch).await.map(drop)
    }

    async fn delete(&self) -> kube::Result<()> {
        self.api.delete(self.name, &DeleteParams::default()).await.map(drop)
    }
}

fn refused(answer: kube::Result<()>, words: &str) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(words) => Ok(()),
        other => bail!("not refused with {words:?}: {other:?}"),
    }
}

/// The policy takes effect a moment after it is stored; what earlier tests left is removed.
async fn policy() -> Result<()> {
    chart()?;
    let all = Api::<BpfNode>::all(admin().await?);
    for name in [OURS, THEIRS] {
        match all.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            gone => drop(gone?),
        }
    }
    let agent = agent_on(OURS).await?;
    let asks = PostParams { dry_run: true, ..PostParams::default() };
    let object = bpf_node(THEIRS, &json!([owner("Node", THEIRS)]))?;
    let nodes = Api::<BpfNode>::all(agent);
    in_effect(NOT_OURS, || async { nodes.create(&asks, &object).await.map(drop) }).await
}

/// Waits until something that is tried is refused with these words.
async fn in_effect<F: Future<Output = kube::Result<()>>>(words: &str, tried: impl Fn() -> F) -> Result<()> {
    for _ in 0..100 {
        match tried().await {
            Err(kube::Error::Api(status)) if status.message.contains(words) => return Ok(()),
            Ok(()) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the policy never came into effect")
}

#[tokio::test]
async fn an_agent_writes_the_bpfnode_of_its_own_node() -> Result<()> {
    policy().await?;
    for node in [OURS, THEIRS] {
        let own = Writes::of(&agent_on(node).await?, node);
        own.create().await.context("create")?;
        own.write_status().await.context("status")?;
        ensure!(own.api.get(node).await?.status.is_some_and(|status| status.node.kernel_release == "6.1.0"));
        own.delete().await.context("delete")?;
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_writes_no_other_nodes_bpfnode() -> Result<()> {
    policy().await?;
    let agent = agent_on(OURS).await?;
    let theirs = Writes::of(&agent, THEIRS);
    refused(theirs.create().await, NOT_OURS)?;
    // Also not one that is owned by its own Node.
    refused(theirs.create_owned(json!([owner("Node", OURS)])).await, NOT_OURS)?;

    Writes::of(&agent_on(THEIRS).await?, THEIRS).create().await?;
    refused(theirs.write_status().await, NOT_OURS)?;
    refused(theirs.delete().await, NOT_OURS)?;
    refused(theirs.patch(json!({"labels": {"a": "b"}})).await, "cannot patch resource")?;
    let all = theirs.api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused(all.map(drop), "cannot deletecollection resource")?;
    Writes::of(&agent_on(THEIRS).await?, THEIRS).delete().await?;
    Ok(())
}

#[tokio::test]
async fn a_bpfnode_is_owned_by_its_node_and_by_nothing_else() -> Result<()> {
    policy().await?;
    let own = Writes::of(&agent_on(OURS).await?, OURS);
    let mut another_group = owner("Node", OURS);
    another_group["apiVersion"] = json!("example.com/v1");
    for owners in [
        json!([]),
        json!([owner("Node", THEIRS)]),
        json!([owner("Namespace", OURS)]),
        json!([owner("Node", OURS), owner("Node", THEIRS)]),
        json!([another_group]),
    ] {
        refused(own.create_owned(owners.clone()).await, NOT_OWNED).with_context(|| owners.to_string())?;
    }
    Ok(())
}

/// The policy does not lean on RBAC: it holds for an agent that RBAC lets do everything.
#[tokio::test]
async fn the_policy_holds_whatever_rbac_grants() -> Result<()> {
    policy().await?;
    let node = ("authentication.kubernetes.io/node-name".to_owned(), vec![OURS.to_owned()]);
    let agent = as_master(&format!("system:serviceaccount:{RELEASE}:sockeye-agent"), [node].into()).await?;
    let (own, theirs) = (Writes::of(&agent, OURS), Writes::of(&agent, THEIRS));
    let outside = Writes::of(&admin().await?, THEIRS);
    own.create().await?;
    outside.create().await?;
    own.patch(json!({"labels": {"a": "b"}})).await?;
    let mut blocking = owner("Node", OURS);
    blocking["blockOwnerDeletion"] = json!(true);
    for owners in [json!([owner("Node", THEIRS)]), json!([blocking]), json!([])] {
        refused(own.patch(json!({"ownerReferences": owners})).await, NOT_OWNED)?;
    }
    refused(theirs.patch(json!({"labels": {"a": "b"}})).await, NOT_OURS)?;
    refused(theirs.write_status().await, NOT_OURS)?;
    let all = theirs.api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused(all.map(drop), NOT_OURS)?;
    outside.api.get(THEIRS).await.context("it was deleted")?;
    outside.delete().await?;
    Ok(())
}

#[tokio::test]
async fn an_agents_token_without_a_pod_writes_nothing() -> Result<()> {
    policy().await?;
    let agent = speaking_for("sockeye-agent").await?;
    let own = Writes::of(&agent, OURS);
    let words = "the token of an agent must be bound to its pod";
    refused(own.create().await, words)?;
    Writes::of(&admin().await?, OURS).create().await?;
    refused(own.write_status().await, words)?;
    refused(own.delete().await, words)?;
    Ok(())
}

#[tokio::test]
async fn others_are_not_affected() -> Result<()> {
    policy().await?;
    // An admin, and a service account of the agent's name and rights in another namespace.
    let client = admin().await?;
    made(&Api::<ServiceAccount>::namespaced(client.clone(), "default"), json!({"metadata": {"name": "sockeye-agent"}}))
        .await?;
    let binding = json!({
        "metadata": {"name": "rights-other"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "sockeye-agent"},
        "subjects": [{"kind": "ServiceAccount", "name": "sockeye-agent", "namespace": "default"}],
    });
    made(&Api::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>::all(client.clone()), binding).await?;
    let namesake = with_token(&token(&client, "default", "sockeye-agent", None).await?).await?;
    for other in [client, namesake] {
        let any = Writes::of(&other, THEIRS);
        any.create_owned(json!([])).await?;
        any.write_status().await?;
        any.delete().await?;
    }
    Ok(())
}

#[tokio::test]
async fn nobody_reads_secrets() -> Result<()> {
    chart()?;
    let secrets = Api::<Secret>::namespaced(admin().await?, RELEASE);
    made(&secrets, json!({"metadata": {"name": "regcred"}, "stringData": {"a": "b"}})).await?;
    for client in [agent_on(OURS).await?, speaking_for("sockeye-operator").await?] {
        let secrets = Api::<Secret>::namespaced(client.clone(), RELEASE);
        refused(secrets.get("regcred").await.map(drop), "cannot get resource \"secrets\"")?;
        refused(secrets.list(&ListParams::default()).await.map(drop), "cannot list resource \"secrets\"")?;
        let everywhere = Api::<Secret>::all(client);
        refused(everywhere.list(&ListParams::default()).await.map(drop), "cannot list resource \"secrets\"")?;
    }
    Ok(())
}
