//! [`Cluster`]: objects of an API server, by a kubeconfig. IO: requests, which change nothing.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use http::Request;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sockeye_crds::names;
use sockeye_read_api::segment;
use tokio::time::timeout;

use super::{Agent, Kind, SourceError, agent::Endpoint, error::causes};

/// The objects of one answer to a list. The API server bounds its own work so.
const PAGE: u32 = 500;
/// The labels of the agents' pods (the chart's `sockeye.selectorLabels`).
const AGENTS: &str = "app.kubernetes.io%2Fname%3Dsockeye%2Capp.kubernetes.io%2Fcomponent%3Dagent";

/// Which cluster, and as whom: the options of kubectl.
#[derive(Args, Clone, Debug, Default)]
pub struct ClusterArgs {
    /// The kubeconfig file. By default, those in KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// The cluster of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub cluster: Option<String>,
    /// The user of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub user: Option<String>,
    /// The user to impersonate.
    #[arg(long = "as", global = true, value_name = "USER", help_heading = "Cluster")]
    pub impersonate: Option<String>,
    /// A group to impersonate; can be given several times.
    #[arg(long = "as-group", global = true, value_name = "GROUP", help_heading = "Cluster")]
    pub impersonate_groups: Vec<String>,
    /// The namespace of pods. By default, that of the context.
    #[arg(long, short, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub namespace: Option<String>,
    /// Pods of all namespaces.
    #[arg(long, short = 'A', global = true, help_heading = "Cluster")]
    pub all_namespaces: bool,
    /// The namespace that sockeye is installed in.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "SOCKEYE_NAMESPACE",
        default_value = "sockeye-system",
        help_heading = "Cluster"
    )]
    pub sockeye_namespace: String,
    /// The longest time for one answer, in seconds.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "15", help_heading = "Cluster")]
    pub request_timeout: u64,
}

/// A cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// For port-forwards, which may be silent for long.
    patient: Client,
    namespace: String,
    all_namespaces: bool,
    sockeye_namespace: String,
    limit: Duration,
}

impl Cluster {
    /// Reads the kubeconfig.
    ///
    /// # Errors
    /// Fails where there is none, or it can't be used.
    pub async fn new(args: &ClusterArgs) -> Result<Self, SourceError> {
        let mut config = config(args).await?;
        // kube would retry up to 15 times before it says what is wrong.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = None;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let wrong = |error: kube::Error| SourceError::Kubeconfig(error.to_string());
        Ok(Self {
            client: Client::try_from(config.clone()).map_err(wrong)?,
            patient: Client::try_from(config).map_err(wrong)?,
            namespace,
            all_namespaces: args.all_namespaces,
            sockeye_namespace: args.sockeye_namespace.clone(),
            limit: Duration::from_secs(args.request_timeout.max(1)),
        })
    }

    /// Returns the namespace of pods, or None for all.
    pub fn namespace(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(&self.namespace)
    }

    /// Returns the namespace that sockeye is installed in.
    pub fn sockeye_namespace(&self) -> &str {
        &self.sockeye_namespace
    }

    /// Returns all objects of a kind.
    ///
    /// # Errors
    /// Fails where they can't be listed.
    pub async fn list(&self, kind: Kind) -> Result<Vec<Value>, SourceError> {
        let path = format!("/apis/{}/{}/{}", names::GROUP, names::VERSION, kind.plural());
        let mut objects = self.pages(&path, "", &format!("list {}", resource(kind))).await?;
        for object in &mut objects {
            // The items of a list do not say their kinds, but an object alone does.
            object["apiVersion"] = Value::String(format!("{}/{}", names::GROUP, names::VERSION));
            object["kind"] = Value::String(kind.name());
        }
        Ok(objects)
    }

    /// Returns an object by its name.
    ///
    /// # Errors
    /// Fails where there is none.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Value, SourceError> {
        let path = format!("/apis/{}/{}/{}/{}", names::GROUP, names::VERSION, kind.plural(), segment(name));
        self.ask(&path, &format!("get {} {name}", resource(kind))).await
    }

    /// Returns the labels of all Nodes, by name.
    ///
    /// # Errors
    /// Fails where they can't be listed.
    pub async fn node_labels(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, SourceError> {
        let nodes: Vec<Node> = self.read_pages("/api/v1/nodes", "", "list nodes").await?;
        let labels = |node: Node| (node.metadata.name.unwrap_or_default(), node.metadata.labels.unwrap_or_default());
        Ok(nodes.into_iter().map(labels).collect())
    }

    /// Returns the labels of all namespaces, by name.
    ///
    /// # Errors
    /// Fails where they can't be listed.
    pub async fn namespace_labels(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, SourceError> {
        let all: Vec<Namespace> = self.read_pages("/api/v1/namespaces", "", "list namespaces").await?;
        let labels = |one: Namespace| (one.metadata.name.unwrap_or_default(), one.metadata.labels.unwrap_or_default());
        Ok(all.into_iter().map(labels).collect())
    }

    /// Returns the pods of a namespace, or of all.
    ///
    /// # Errors
    /// Fails where they can't be listed.
    pub async fn pods(&self, namespace: Option<&str>) -> Result<Vec<Pod>, SourceError> {
        let (path, right) = match namespace {
            Some(namespace) => {
                (format!("/api/v1/namespaces/{}/pods", segment(namespace)), format!("list pods in {namespace}"))
            }
            None => ("/api/v1/pods".to_owned(), "list pods".to_owned()),
        };
        self.read_pages(&path, "", &right).await
    }

    /// Returns a pod.
    ///
    /// # Errors
    /// Fails where there is none.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Pod, SourceError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", segment(namespace), segment(name));
        let right = format!("get pods {namespace}/{name}");
        read(self.ask(&path, &right).await?, &right)
    }

    /// Returns the bytes in a key of a ConfigMap in sockeye's namespace.
    ///
    /// # Errors
    /// Fails where there are none.
    pub async fn config_map_key(&self, name: &str, key: &str) -> Result<Vec<u8>, SourceError> {
        let namespace = &self.sockeye_namespace;
        let path = format!("/api/v1/namespaces/{}/configmaps/{}", segment(namespace), segment(name));
        let right = format!("get configmaps {name} in {namespace}");
        let map: k8s_openapi::api::core::v1::ConfigMap = read(self.ask(&path, &right).await?, &right)?;
        let binary = map.binary_data.and_then(|mut data| data.remove(key)).map(|bytes| bytes.0);
        let text = || map.data.and_then(|mut data| data.remove(key)).map(String::into_bytes);
        binary.or_else(text).ok_or_else(|| SourceError::NotFound {
            what: format!("key {key} of ConfigMap {name} in namespace {namespace}"),
        })
    }

    /// Returns the agents of all nodes.
    ///
    /// # Errors
    /// Fails where pods of sockeye's namespace can't be listed.
    pub async fn agents(&self) -> Result<Vec<Agent>, SourceError> {
        let namespace = &self.sockeye_namespace;
        let path = format!("/api/v1/namespaces/{}/pods", segment(namespace));
        let right = format!("list pods in {namespace}");
        let pods: Vec<Pod> = self.read_pages(&path, &format!("&labelSelector={AGENTS}"), &right).await?;
        let agent = |pod: Pod| {
            let node = pod.spec?.node_name?;
            let is_running = pod.status?.phase.as_deref() == Some("Running");
            let pod = pod.metadata.name?;
            let endpoint = Endpoint::Pod { client: self.patient.clone(), namespace: namespace.clone(), pod };
            is_running.then_some(Agent { node, endpoint, limit: self.limit })
        };
        let mut agents: Vec<Agent> = pods.into_iter().filter_map(agent).collect();
        agents.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(agents)
    }

    async fn read_pages<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &str,
        right: &str,
    ) -> Result<Vec<T>, SourceError> {
        self.pages(path, query, right).await?.into_iter().map(|object| read(object, right)).collect()
    }

    /// Returns the items of a list, page by page.
    async fn pages(&self, path: &str, query: &str, right: &str) -> Result<Vec<Value>, SourceError> {
        let (mut items, mut more) = (Vec::new(), String::new());
        loop {
            let page = format!("{path}?limit={PAGE}{query}{more}");
            let mut answer = self.ask(&page, right).await?;
            if let Value::Array(page) = answer["items"].take() {
                items.extend(page);
            }
            match answer["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => more = format!("&continue={}", encoded(token)),
                _ => return Ok(items),
            }
        }
    }

    async fn ask(&self, path: &str, right: &str) -> Result<Value, SourceError> {
        let refused = |message: String| SourceError::Refused { what: right.to_owned(), message };
        let request = Request::get(path).body(Vec::new()).map_err(|error| refused(error.to_string()))?;
        let answer = timeout(self.limit, self.client.request_text(request)).await;
        let late = |_| SourceError::TimedOut { what: right.to_owned(), limit: self.limit };
        let text = answer.map_err(late)?.map_err(|error| failed(error, right))?;
        serde_json::from_str(&text).map_err(|error| refused(error.to_string()))
    }
}

fn resource(kind: Kind) -> String {
    format!("{}.{}", kind.plural(), names::GROUP)
}

fn read<T: DeserializeOwned>(object: Value, right: &str) -> Result<T, SourceError> {
    serde_json::from_value(object)
        .map_err(|error| SourceError::Unreadable { what: right.to_owned(), problem: error.to_string() })
}

/// Returns text as a part of a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn failed(error: kube::Error, right: &str) -> SourceError {
    match error {
        kube::Error::Api(status) => match status.code {
            403 => SourceError::Forbidden { right: right.to_owned() },
            404 if right.starts_with("list ") => SourceError::NotInstalled { what: right[5..].to_owned() },
            404 => SourceError::NotFound { what: right.strip_prefix("get ").unwrap_or(right).to_owned() },
            _ => SourceError::Refused { what: right.to_owned(), message: status.message },
        },
        other => SourceError::Unreachable(causes(&other)),
    }
}

async fn config(args: &ClusterArgs) -> Result<Config, SourceError> {
    let wrong = |error: &dyn std::error::Error| SourceError::Kubeconfig(causes(error));
    let options =
        KubeConfigOptions { context: args.context.clone(), cluster: args.cluster.clone(), user: args.user.clone() };
    let is_named = args.kubeconfig.is_some() || args.context.is_some() || args.cluster.is_some() || args.user.is_some();
    let kubeconfig = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let mut config = match kubeconfig {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| wrong(&error))?,
        // In a pod there is none.
        Err(error) if !is_named => Config::incluster().map_err(|_| wrong(&error))?,
        Err(error) => return Err(wrong(&error)),
    };
    if args.impersonate.is_some() {
        config.auth_info.impersonate = args.impersonate.clone();
    }
    if !args.impersonate_groups.is_empty() {
        config.auth_info.impersonate_groups = Some(args.impersonate_groups.clone());
    }
    Ok(config)
}
