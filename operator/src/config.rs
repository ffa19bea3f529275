//! `Config`: what an installation may choose. Values only; no IO.

use std::time::Duration;

/// The field manager of everything the operator writes, and the controller that its Events name.
pub const MANAGER: &str = "sockeye-operator";

/// What an installation may choose.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace sockeye is installed in: its agents' pods, users' bytecode and the stored bytes are there.
    pub namespace: String,
    /// The label selector of the agents' pods.
    pub agent_selector: String,
    /// Where `/healthz` and `/readyz` are served; 0 serves them nowhere.
    pub health_port: u16,
    /// How many BpfPrograms are reconciled at the same time.
    pub concurrency: usize,
    /// How long an untouched BpfProgram waits to be looked at again.
    pub resync: Duration,
    /// How old stored bytes must be before they are removed because no revision refers to them.
    pub bytes_grace: Duration,
}

impl Config {
    /// The labels that the chart gives its agents.
    pub const AGENT_SELECTOR: &'static str = "app.kubernetes.io/name=sockeye,app.kubernetes.io/component=agent";

    /// The defaults, for an installation in that namespace.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            agent_selector: Self::AGENT_SELECTOR.to_owned(),
            health_port: 0,
            concurrency: 4,
            resync: Duration::from_secs(300),
            bytes_grace: Duration::from_secs(600),
        }
    }
}
