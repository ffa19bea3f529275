//! `Dialog`: what is said on one connection: the plugin registers, says what it wants to be told, takes in what there is, and
//! then answers each start as it is answered here. No IO.

use std::{collections::HashMap, mem, time::Duration};

use futures::future::BoxFuture;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Container, Hooked, Pod, Starting,
    frame::{Kind, Line, Message},
    proto,
    session::Lost,
};

/// The plugin's name, by which a runtime may require it.
const NAME: &str = "sockeye";
/// Plugins are asked in the order of these: late, so that what others refuse is not attached to.
const INDEX: &str = "90";
/// How long a runtime waits for an answer where it does not say (`api.DefaultPluginRequestTimeout`).
const PATIENCE: Duration = Duration::from_secs(2);
/// A refusal is cut at this length: the kubelet puts it into an Event, which has 1024 bytes.
const REFUSAL_MOST: usize = 800;
/// The stream of the only question that is asked of the runtime.
const REGISTRATION: u32 = 1;

/// Whether a start may go on.
pub type Ruling = Result<(), String>;

/// What a message comes to.
pub enum Taken {
    /// To nothing that is to be said.
    Nothing,
    /// To this answer.
    Said(Message),
    /// To an answer on this stream, once there is one.
    Held(u32, BoxFuture<'static, Ruling>),
    /// To this answer, and from it on the runtime asks.
    Hooked(Message, Hooked),
}

/// What is known of the runtime, and what it told so far.
pub struct Dialog {
    starts: mpsc::Sender<Starting>,
    name: String,
    version: String,
    patience: Duration,
    pods: Vec<proto::PodSandbox>,
    containers: Vec<proto::Container>,
}

impl Dialog {
    /// Of a connection that was just made.
    pub const fn new(starts: mpsc::Sender<Starting>) -> Self {
        Self {
            starts,
            name: String::new(),
            version: String::new(),
            patience: PATIENCE,
            pods: Vec::new(),
            containers: Vec::new(),
        }
    }

    /// Takes in what the runtime says.
    pub fn take(&mut self, message: Message) -> Result<Taken, Lost> {
        let Message { line, kind, stream, payload } = message;
        match (line, kind) {
            (Line::Runtime, Kind::Response) if stream == REGISTRATION => {
                let status = proto::Response::decode(payload)?.status;
                status
                    .filter(|status| status.code != 0)
                    .map_or(Ok(Taken::Nothing), |said| Err(Lost::Refused(said.message)))
            }
            (Line::Plugin, Kind::Request) => self.answer(stream, proto::Request::decode(payload)?),
            _ => Ok(Taken::Nothing),
        }
    }

    fn answer(&mut self, stream: u32, request: proto::Request) -> Result<Taken, Lost> {
        let proto::Request { service, method, payload, timeout_nano } = request;
        let patience = match u64::try_from(timeout_nano) {
            Ok(nanos @ 1..) => Duration::from_nanos(nanos),
            _ => self.patience,
        };
        let method = if service == proto::PLUGIN { method.as_str() } else { "" };
        Ok(match method {
            "Configure" => self.configure(stream, proto::ConfigureRequest::decode(payload)?),
            "Synchronize" => self.synchronize(stream, proto::SynchronizeRequest::decode(payload)?),
            "RunPodSandbox" | "StartContainer" => {
                let proto::StartRequest { pod, container } = proto::StartRequest::decode(payload)?;
                self.hold(stream, pod, container, patience)
            }
            "StateChange" => {
                let proto::StateChangeEvent { event, pod, container } = proto::StateChangeEvent::decode(payload)?;
                match event {
                    proto::RUN_POD_SANDBOX => self.hold(stream, pod, None, patience),
                    proto::START_CONTAINER => self.hold(stream, pod, container, patience),
                    _ => Taken::Said(well(stream, &())),
                }
            }
            "Shutdown" => Taken::Said(well(stream, &())),
            _ => Taken::Said(ill(stream, proto::UNIMPLEMENTED, format!("{service}/{method} is not answered here"))),
        })
    }

    fn configure(&mut self, stream: u32, request: proto::ConfigureRequest) -> Taken {
        let proto::ConfigureRequest { runtime_name, runtime_version, request_timeout } = request;
        (self.name, self.version) = (runtime_name, runtime_version);
        if let Ok(millis @ 1..) = u64::try_from(request_timeout) {
            self.patience = Duration::from_millis(millis);
        }
        Taken::Said(well(stream, &proto::ConfigureResponse { events: proto::EVENTS }))
    }

    fn synchronize(&mut self, stream: u32, request: proto::SynchronizeRequest) -> Taken {
        let proto::SynchronizeRequest { pods, containers, more } = request;
        self.pods.extend(pods);
        self.containers.extend(containers);
        let answer = well(stream, &proto::SynchronizeResponse { more });
        if more {
            return Taken::Said(answer);
        }
        let pods = mem::take(&mut self.pods).into_iter().map(|pod| (pod.id.clone(), Pod::from(pod)));
        let pods: HashMap<String, Pod> = pods.collect();
        let containers = mem::take(&mut self.containers).into_iter();
        let running = containers.filter_map(|one| Some((pods.get(&one.pod_sandbox_id)?.clone(), one.into()))).collect();
        let hooked = Hooked::Yes { runtime: self.name.clone(), version: self.version.clone(), running };
        Taken::Hooked(answer, hooked)
    }

    fn hold(
        &self,
        stream: u32,
        pod: Option<proto::PodSandbox>,
        container: Option<proto::Container>,
        patience: Duration,
    ) -> Taken {
        let Some(pod) = pod else {
            return Taken::Said(ill(stream, proto::INVALID_ARGUMENT, "a start without its pod".to_owned()));
        };
        let (answer, answered) = oneshot::channel();
        let starting = Starting { pod: pod.into(), container: container.map(Container::from), answer };
        let starts = self.starts.clone();
        // The runtime takes an answer that is late for a plugin that is dead, and starts the container.
        let within = patience.mul_f64(0.75);
        let ruled = async move {
            let ask = async {
                starts.send(starting).await.ok()?;
                answered.await.ok()
            };
            match timeout(within, ask).await {
                Ok(Some(ruling)) => ruling,
                Ok(None) => Err("sockeye's agent gave no answer".to_owned()),
                Err(_) => Err(format!(
                    "sockeye's agent had not attached all that is to be within {within:.1?}; its log says what it waits for"
                )),
            }
        };
        Taken::Held(stream, Box::pin(ruled))
    }
}

/// The plugin's first word; the answer to it is waited for so long.
pub fn register(within: Duration) -> Message {
    let registration = proto::RegisterPluginRequest { plugin_name: NAME.to_owned(), plugin_idx: INDEX.to_owned() };
    let request = proto::Request {
        service: proto::RUNTIME.to_owned(),
        method: "RegisterPlugin".to_owned(),
        payload: registration.encode_to_vec().into(),
        timeout_nano: within.as_nanos() as i64,
    };
    Message::new(Line::Runtime, Kind::Request, REGISTRATION, &request)
}

/// The answer to a start.
pub fn rule(stream: u32, ruling: Ruling) -> Message {
    match ruling {
        Ok(()) => well(stream, &()),
        Err(mut why) => {
            why.truncate(why.floor_char_boundary(REFUSAL_MOST));
            ill(stream, proto::FAILED_PRECONDITION, why)
        }
    }
}

fn well(stream: u32, what: &impl prost::Message) -> Message {
    let response = proto::Response { status: None, payload: what.encode_to_vec().into() };
    Message::new(Line::Plugin, Kind::Response, stream, &response)
}

fn ill(stream: u32, code: i32, message: String) -> Message {
    let response = proto::Response { status: Some(proto::Status { code, message }), ..proto::Response::default() };
    Message::new(Line::Plugin, Kind::Response, stream, &response)
}

impl From<proto::PodSandbox> for Pod {
    fn from(pod: proto::PodSandbox) -> Self {
        let proto::PodSandbox { id: _, name, uid, namespace, labels } = pod;
        Self { uid, namespace, name, labels }
    }
}

impl From<proto::Container> for Container {
    fn from(container: proto::Container) -> Self {
        let proto::Container { id, pod_sandbox_id: _, name } = container;
        Self { id, name }
    }
}
