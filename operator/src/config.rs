//! [`Config`]: the settings of an installation. IO: none.

use std::time::Duration;

use sockeye_metrics::serve;

use crate::{images::args::ImageArgs, signing::PolicyFiles};

/// The field manager of the operator's writes, and the reporting controller of its Events.
pub const MANAGER: &str = "sockeye-operator";

/// The settings of an installation.
#[derive(Clone, Debug)]
pub struct Config {
    /// The release namespace: the agents' pods, users' ConfigMaps and the stored bytes are there.
    pub namespace: String,
    /// The label selector of the agents' pods.
    pub agent_selector: String,
    /// The port of `/healthz` and `/readyz`; 0 for none.
    pub health_port: u16,
    /// Where `/metrics` is served, and to whom.
    pub metrics: serve::Settings,
    /// The number of BpfPrograms that are reconciled at the same time.
    pub concurrency: usize,
    /// The time after which a BpfProgram is reconciled without a trigger.
    pub resync: Duration,
    /// The registries.
    pub images: ImageArgs,
    /// The policy for signatures.
    pub policy: PolicyFiles,
    /// The age at which stored bytes are deleted that no revision names.
    pub bytes_grace: Duration,
}

impl Config {
    /// The label selector of the chart's agents.
    pub const AGENT_SELECTOR: &'static str = "app.kubernetes.io/name=sockeye,app.kubernetes.io/component=agent";

    /// Returns the defaults for an installation in `namespace`.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            agent_selector: Self::AGENT_SELECTOR.to_owned(),
            health_port: 0,
            metrics: serve::Settings::default(),
            concurrency: 4,
            resync: Duration::from_secs(300),
            images: ImageArgs::default(),
            policy: PolicyFiles::default(),
            bytes_grace: Duration::from_secs(600),
        }
    }
}
