//! `Plugin`: the agent's side of the protocol on one connection. It registers, subscribes to starts, takes the
//! runtime's list of what runs, and passes on each start. No IO on the connection.

use std::{collections::HashMap, mem, time::Duration};

use futures::future::BoxFuture;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    error::SessionError,
    frame::{Channel, Kind, Message},
    hook::{RuntimeHook, Starting},
    proto,
};
use crate::model::{
    pods::Pod,
    start::{Container, Decision, Start},
};

/// The plugin's name. A runtime may be configured to require a plugin of this name.
const NAME: &str = "sockeye";
/// The runtime asks plugins in the order of their indices. This one is late, so that a start that another plugin
/// refuses has nothing attached to it.
const INDEX: &str = "90";
/// The time that a runtime waits for an answer where it does not say (`api.DefaultPluginRequestTimeout`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// The part of the runtime's timeout after which a start is refused. The runtime takes a plugin that answers late for
/// dead, and starts the container.
const TIMEOUT_SHARE: f64 = 0.75;
/// The longest refusal, in bytes. The kubelet puts it into an Event, whose message has at most 1024 bytes.
const MAX_REFUSAL: usize = 800;
/// The stream of the only request to the runtime.
const REGISTRATION: u32 = 1;

/// The reply to a message.
pub enum Reply {
    /// No reply.
    None,
    /// This answer.
    Now(Message),
    /// An answer on this stream, once there is a decision.
    Later(u32, BoxFuture<'static, Decision>),
    /// This answer; from then on the runtime asks.
    Connected(Message, RuntimeHook),
}

/// The plugin, and what it knows of the runtime.
pub struct Plugin {
    starts: mpsc::Sender<Starting>,
    runtime: String,
    version: String,
    timeout: Duration,
    pods: Vec<proto::PodSandbox>,
    containers: Vec<proto::Container>,
}

impl Plugin {
    /// Returns the plugin of a new connection; it passes starts on to this channel.
    pub const fn new(starts: mpsc::Sender<Starting>) -> Self {
        Self {
            starts,
            runtime: String::new(),
            version: String::new(),
            timeout: DEFAULT_TIMEOUT,
            pods: Vec::new(),
            containers: Vec::new(),
        }
    }

    /// Handles a message from the runtime.
    pub fn receive(&mut self, message: Message) -> Result<Reply, SessionError> {
        let Message { channel, kind, stream, payload } = message;
        match (channel, kind) {
            (Channel::Runtime, Kind::Response) if stream == REGISTRATION => {
                match proto::Response::decode(payload)?.status.filter(|status| status.code != 0) {
                    Some(status) => Err(SessionError::Rejected(status.message)),
                    None => Ok(Reply::None),
                }
            }
            (Channel::Plugin, Kind::Request) => self.reply(stream, proto::Request::decode(payload)?),
            _ => Ok(Reply::None),
        }
    }

    fn reply(&mut self, stream: u32, request: proto::Request) -> Result<Reply, SessionError> {
        let proto::Request { service, method, payload, timeout_nano } = request;
        let timeout = match u64::try_from(timeout_nano) {
            Ok(nanos @ 1..) => Duration::from_nanos(nanos),
            _ => self.timeout,
        };
        let method = if service == proto::PLUGIN { method.as_str() } else { "" };
        Ok(match method {
            "Configure" => self.configure(stream, proto::ConfigureRequest::decode(payload)?),
            "Synchronize" => self.synchronize(stream, proto::SynchronizeRequest::decode(payload)?),
            "RunPodSandbox" | "StartContainer" => {
                let proto::StartRequest { pod, container } = proto::StartRequest::decode(payload)?;
                self.hold(stream, pod, container, timeout)
            }
            "StateChange" => {
                let proto::StateChangeEvent { event, pod, container } = proto::StateChangeEvent::decode(payload)?;
                match event {
                    proto::RUN_POD_SANDBOX => self.hold(stream, pod, None, timeout),
                    proto::START_CONTAINER => self.hold(stream, pod, container, timeout),
                    _ => Reply::Now(success(stream, &())),
                }
            }
            "Shutdown" => Reply::Now(success(stream, &())),
            _ => {
                let message = format!("{service}/{method} is not answered here");
                Reply::Now(failure(stream, proto::UNIMPLEMENTED, message))
            }
        })
    }

    fn configure(&mut self, stream: u32, request: proto::ConfigureRequest) -> Reply {
        let proto::ConfigureRequest { runtime_name, runtime_version, request_timeout } = request;
        (self.runtime, self.version) = (runtime_name, runtime_version);
        if let Ok(millis @ 1..) = u64::try_from(request_timeout) {
            self.timeout = Duration::from_millis(millis);
        }
        Reply::Now(success(stream, &proto::ConfigureResponse { events: proto::EVENTS }))
    }

    fn synchronize(&mut self, stream: u32, request: proto::SynchronizeRequest) -> Reply {
        let proto::SynchronizeRequest { pods, containers, more } = request;
        self.pods.extend(pods);
        self.containers.extend(containers);
        let answer = success(stream, &proto::SynchronizeResponse { more });
        if more {
            return Reply::Now(answer);
        }
        let pods = mem::take(&mut self.pods).into_iter().map(|pod| (pod.id.clone(), Pod::from(pod)));
        let pods: HashMap<String, Pod> = pods.collect();
        let start = |container: proto::Container| {
            let pod = pods.get(&container.pod_sandbox_id)?.clone();
            Some(Start { pod, container: Some(container.into()) })
        };
        let running = mem::take(&mut self.containers).into_iter().filter_map(start).collect();
        let (runtime, version) = (self.runtime.clone(), self.version.clone());
        Reply::Connected(answer, RuntimeHook::Connected { runtime, version, running })
    }

    /// Passes a start on, and refuses it where there is no decision in time.
    fn hold(
        &self,
        stream: u32,
        pod: Option<proto::PodSandbox>,
        container: Option<proto::Container>,
        timeout: Duration,
    ) -> Reply {
        let Some(pod) = pod else {
            return Reply::Now(failure(stream, proto::INVALID_ARGUMENT, "a start without its pod".to_owned()));
        };
        let start = Start { pod: pod.into(), container: container.map(Container::from) };
        Reply::Later(stream, Box::pin(decide(self.starts.clone(), start, timeout.mul_f64(TIMEOUT_SHARE))))
    }
}

/// Waits for the decision on a start, at most for this time.
async fn decide(starts: mpsc::Sender<Starting>, start: Start, within: Duration) -> Decision {
    let (answer, answered) = oneshot::channel();
    let ask = async {
        starts.send(Starting { start, answer }).await.ok()?;
        answered.await.ok()
    };
    match timeout(within, ask).await {
        Ok(Some(decision)) => decision,
        Ok(None) => Err("sockeye's agent gave no answer".to_owned()),
        Err(_) => Err(format!(
            "sockeye's agent had not attached all that is to be within {within:.1?}; its log says what it waits for"
        )),
    }
}

/// Returns the plugin's first message; the plugin waits for the answer for this time.
pub fn register(within: Duration) -> Message {
    let registration = proto::RegisterPluginRequest { plugin_name: NAME.to_owned(), plugin_idx: INDEX.to_owned() };
    let request = proto::Request {
        service: proto::RUNTIME.to_owned(),
        method: "RegisterPlugin".to_owned(),
        payload: registration.encode_to_vec().into(),
        timeout_nano: within.as_nanos() as i64,
    };
    Message::new(Channel::Runtime, Kind::Request, REGISTRATION, &request)
}

/// Returns the answer to a start.
pub fn answer(stream: u32, decision: Decision) -> Message {
    match decision {
        Ok(()) => success(stream, &()),
        Err(mut why) => {
            why.truncate(why.floor_char_boundary(MAX_REFUSAL));
            failure(stream, proto::FAILED_PRECONDITION, why)
        }
    }
}

fn success(stream: u32, content: &impl prost::Message) -> Message {
    let response = proto::Response { status: None, payload: content.encode_to_vec().into() };
    Message::new(Channel::Plugin, Kind::Response, stream, &response)
}

fn failure(stream: u32, code: i32, message: String) -> Message {
    let response = proto::Response { status: Some(proto::Status { code, message }), ..proto::Response::default() };
    Message::new(Channel::Plugin, Kind::Response, stream, &response)
}

impl From<proto::PodSandbox> for Pod {
    fn from(pod: proto::PodSandbox) -> Self {
        let proto::PodSandbox { id: _, name, uid, namespace, labels } = pod;
        Self { uid, namespace, name, labels, ..Self::default() }
    }
}

impl From<proto::Container> for Container {
    fn from(container: proto::Container) -> Self {
        let proto::Container { id, pod_sandbox_id: _, name } = container;
        Self { id, name }
    }
}
