//! The messages of NRI (`nri/pkg/api/api.proto`) and of ttrpc, which carries them. Only the messages that the agent
//! uses are here, with the fields that it reads; decoding skips all others. Pure.

use std::collections::BTreeMap;

use prost::{Message, bytes::Bytes};

/// The service that plugins offer to the runtime.
pub const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service that the runtime offers to plugins.
pub const RUNTIME: &str = "nri.pkg.api.v1alpha1.Runtime";
/// `Event.RUN_POD_SANDBOX`.
pub const RUN_POD_SANDBOX: i32 = 1;
/// `Event.START_CONTAINER`.
pub const START_CONTAINER: i32 = 6;
/// The events that the plugin subscribes to: a bit for each, from 1.
pub const EVENTS: i32 = 1 << (RUN_POD_SANDBOX - 1) | 1 << (START_CONTAINER - 1);
/// gRPC's code of a request that the system's state does not allow.
pub const FAILED_PRECONDITION: i32 = 9;
/// gRPC's code of an unknown method. The runtime then sends the older message, if there is one.
pub const UNIMPLEMENTED: i32 = 12;
/// gRPC's code of an invalid message.
pub const INVALID_ARGUMENT: i32 = 3;

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// The time that the sender waits for the response; 0 where it does not say.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// Absent means success.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct RegisterPluginRequest {
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// Two digits. The runtime asks plugins in the order of their indices.
    #[prost(string, tag = "2")]
    pub plugin_idx: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ConfigureRequest {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// In milliseconds; 0 from runtimes older than the field.
    #[prost(int64, tag = "5")]
    pub request_timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct ConfigureResponse {
    #[prost(int32, tag = "2")]
    pub events: i32,
}

/// All pods and containers that the runtime has, in several messages where one is too small.
#[derive(Clone, PartialEq, Message)]
pub struct SynchronizeRequest {
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodSandbox>,
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct SynchronizeResponse {
    /// Confirms the request's `more`.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// `RunPodSandboxRequest` and `StartContainerRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct StartRequest {
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
}

/// The message of older runtimes for both, and for all other events.
#[derive(Clone, PartialEq, Message)]
pub struct StateChangeEvent {
    #[prost(int32, tag = "1")]
    pub event: i32,
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "3")]
    pub container: Option<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub uid: String,
    #[prost(string, tag = "4")]
    pub namespace: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(string, tag = "3")]
    pub name: String,
}
