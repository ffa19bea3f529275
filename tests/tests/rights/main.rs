//! Rights, on a real API server: the chart's identities and roles have the rights they need and no others, an agent
//! writes for its own node only, and nobody but the operator writes what agents run.
//!
//! KUBECONFIG names the API server (tests/run.sh starts one: `tests/cluster/cluster.sh api-up DIR`). Helm renders the
//! chart, which is installed as it is. Nothing runs there: the tests speak as agents and operator with real tokens.
#![allow(missing_docs)]

mod access;
mod bpfnodes;
mod chart;
mod clients;
mod configmaps;
mod hooks;
mod leases;
mod needs;
mod people;
mod revisions;
mod schemas;
mod secrets;
mod tokens;
