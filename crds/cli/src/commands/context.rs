//! [`Context`]: what the options of all verbs say.

use std::time::Duration;

use clap::Args;

use crate::{
    output::{Format, terminal::Colours},
    source::{Agent, Cluster, Source, SourceError, Standalone, cluster::ClusterArgs, standalone::StandaloneArgs},
};

/// The options of all verbs.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    standalone: StandaloneArgs,
    /// The form of the output: table, wide, json, yaml, name, or jsonpath=TEMPLATE.
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
    /// Leave out the names of the columns.
    #[arg(long, global = true)]
    no_headers: bool,
}

/// The options of all verbs, understood.
pub struct Context {
    options: Options,
    /// The form of the output.
    pub format: Format,
    /// True if the names of columns are left out.
    pub no_headers: bool,
    /// The colours of standard output.
    pub colours: Colours,
}

impl Context {
    /// Returns the context of options.
    pub fn new(options: Options) -> Self {
        Self { format: options.output.clone(), no_headers: options.no_headers, colours: Colours::of_stdout(), options }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.options.cluster.request_timeout.max(1))
    }

    /// Returns the node without a cluster, if the options name one.
    pub fn standalone(&self) -> Option<Standalone> {
        Standalone::new(&self.options.standalone, self.limit())
    }

    /// Returns the namespace that the command line names, if it names one.
    pub fn named_namespace(&self) -> Option<String> {
        self.options.cluster.namespace.clone().filter(|_| !self.options.cluster.all_namespaces)
    }

    /// Returns where objects and agents are.
    ///
    /// # Errors
    /// Fails where there is no kubeconfig that can be used.
    pub async fn source(&self) -> Result<Source, SourceError> {
        match self.standalone() {
            Some(standalone) => Ok(Source::Standalone(standalone)),
            None => Cluster::new(&self.options.cluster).await.map(Source::Cluster),
        }
    }

    /// Returns the agents of these nodes, or of all if none is named.
    ///
    /// # Errors
    /// Fails where agents can't be listed, or a node has none.
    pub async fn agents(&self, source: &Source, nodes: &[String]) -> anyhow::Result<Vec<Agent>> {
        let agents = source.agents().await?;
        if let Some(missing) = nodes.iter().find(|node| !agents.iter().any(|agent| agent.node == **node)) {
            anyhow::bail!("node {missing} has no agent that runs: see sockeye get nodes");
        }
        if agents.is_empty() {
            let namespace = match source {
                Source::Cluster(cluster) => cluster.sockeye_namespace(),
                Source::Standalone(_) => "",
            };
            anyhow::bail!("namespace {namespace} has no agent that runs: is sockeye in another --sockeye-namespace?");
        }
        Ok(agents.into_iter().filter(|agent| nodes.is_empty() || nodes.contains(&agent.node)).collect())
    }
}
