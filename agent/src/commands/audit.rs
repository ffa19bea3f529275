//! `audit`: prints the events of the builtin connect-audit on this node, one line of JSON each, as the read API streams
//! them: with the pod and the container that connected. Does IO: reads the program's ring buffer, lists cgroups and
//! pods. Needs no cluster, and no running agent.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1 as core;
use kube::{Api, api::ListParams};
use sockeye_crds::{
    Builtin, names,
    program::{Format, StreamField, StreamReader, StreamSpec},
};
use sockeye_ebpf::{Object, programs::builtin, values::RecordShape};

use super::bpffs;
use crate::{
    kernel::{SysError, bpffs::Dir, cgroup::Root, ring::Ring},
    model::pod::Pod,
    node::layout::{self, DIRECTORY, Layout},
    standalone::pod_list::PodList,
    streams::{pods::Owners, record_writer::RecordWriter},
};

/// The map that connect-audit writes its events to.
const EVENTS: &str = "events";

/// The interval at which the ring buffer is read. To be notified of each event would cost the connecting process a
/// wake-up.
const POLL: Duration = Duration::from_millis(100);

/// The interval at which the API server is asked for the node's pods.
const LIST_PODS: Duration = Duration::from_secs(10);

/// Where to look, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The mount point of bpffs.
    pub bpffs: PathBuf,
    /// The node's cgroup root; found where absent.
    pub cgroup_root: Option<PathBuf>,
    /// A file that lists the node's pods; absent means that the API server is asked.
    pub pods: Option<PathBuf>,
    /// The node's name in the cluster; absent means that there is none.
    pub node_name: Option<String>,
    /// Go on until the process ends. Otherwise what is in the buffer is printed.
    pub follow: bool,
}

/// Prints the events of a BpfProgram.
///
/// # Errors
/// Fails where there is no bpffs, or where the BpfProgram has no pins there, or is not connect-audit.
pub async fn run(options: Options, program: &str) -> Result<()> {
    let Options { bpffs, cgroup_root, pods, node_name, follow } = options;
    let layout = Layout::new(&bpffs, &bpffs);
    let root = bpffs::open(&layout)?;
    if let Some(why) = missing(&root, &layout, program)? {
        bail!(why);
    }
    // An open directory would keep the bpffs from being unmounted.
    drop(root);
    let pin = layout.home(program).directory().join(layout::map(EVENTS));
    let mut ring =
        Ring::open(&pin).map_err(|error| anyhow!("the events of BpfProgram {program} can't be read: {error}"))?;
    let mut pods = PodSource::new(pods, node_name).await;
    // Without one, no event names a pod.
    let cgroups = Root::find(cgroup_root.as_deref()).inspect_err(|error| tracing::warn!(%error, "no pod is named"));
    let writer = RecordWriter::new(shape()?, Owners::new(cgroups.ok(), Arc::default()));
    loop {
        if let Some(pods) = pods.changed().await {
            writer.update(|owners| owners.set_pods(pods));
        }
        while let Some(line) = ring.take(|record| writer.line(record)) {
            io::stdout().write_all(&line)?;
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Returns the type of connect-audit's events, shown as its example's stream shows them.
fn shape() -> Result<RecordShape> {
    let field = |name: &str, format| StreamField { name: name.to_owned(), format };
    let stream = StreamSpec {
        reader: StreamReader::Agent,
        type_name: Some("event".to_owned()),
        fields: vec![field("address", Format::IPAddress), field("cgroup", Format::Pod)],
    };
    let object = Object::read(builtin(Builtin::ConnectAudit)).map_err(|error| anyhow!("connect-audit: {error}"))?;
    RecordShape::of(&object, &stream).map_err(|mistake| anyhow!("connect-audit: stream{mistake}"))
}

/// Where the node's pods come from.
enum PodSource {
    /// Nowhere: no pod is named.
    None,
    File(PodList),
    /// The API server, asked with the credentials of the agent's pod.
    Cluster {
        api: Api<core::Pod>,
        node_name: String,
        asked: Option<Instant>,
    },
}

impl PodSource {
    async fn new(file: Option<PathBuf>, node_name: Option<String>) -> Self {
        if let Some(file) = file {
            return Self::File(PodList::new(file));
        }
        let Some(node_name) = node_name else { return Self::None };
        match cluster().await {
            Ok(api) => Self::Cluster { api, node_name, asked: None },
            Err(error) => {
                tracing::warn!("no pod is named: {error:#}");
                Self::None
            }
        }
    }

    /// Returns the pods, if they may be others than before.
    async fn changed(&mut self) -> Option<Arc<Vec<Pod>>> {
        match self {
            Self::None => None,
            Self::File(list) => list.scan().then(|| list.pods.clone()).flatten(),
            Self::Cluster { asked, .. } if asked.is_some_and(|at| at.elapsed() < LIST_PODS) => None,
            Self::Cluster { api, node_name, asked } => {
                *asked = Some(Instant::now());
                let here = ListParams::default().fields(&format!("spec.nodeName={node_name}"));
                match api.list(&here).await {
                    Ok(pods) => Some(Arc::new(pods.items.iter().map(Pod::read).collect())),
                    Err(error) => {
                        tracing::warn!(%error, "the node's pods can't be listed");
                        None
                    }
                }
            }
        }
    }
}

async fn cluster() -> Result<Api<core::Pod>> {
    let config = kube::Config::infer().await.context("no way to the Kubernetes API")?;
    Ok(Api::all(sockeye_client::client(config).context("no way to the Kubernetes API")?))
}

/// Returns why a BpfProgram's events can't be there, if its pin of them is missing.
fn missing(root: &Dir, layout: &Layout, program: &str) -> Result<Option<String>, SysError> {
    let home = Path::new(DIRECTORY).join(program);
    if root.contains(&home.join(layout::map(EVENTS)))? {
        return Ok(None);
    }
    let directory = layout.directory().display();
    if root.contains(&home)? {
        return Ok(Some(format!(
            "BpfProgram {program} is not of connect-audit, or not loaded: {directory}/{program} has no map {EVENTS}"
        )));
    }
    let mut there = root.list(Path::new(DIRECTORY))?;
    // Other names are the notes on the whole node.
    there.retain(|name| names::is_dns_label(name));
    let there = if there.is_empty() { "none".to_owned() } else { names::line(&there.join(", "), 200) };
    Ok(Some(format!(
        "there is no BpfProgram {program} in {directory}, which is on a bpffs and has these: {there}. If that is \
         another bpffs than the agent's, {}",
        bpffs::HINT
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_from_a_wrong_path_and_from_another_program() {
        let made = tempfile::tempdir().unwrap();
        let (root, layout) = (Dir::at(made.path()).unwrap(), Layout::new(made.path(), made.path()));
        let why = || missing(&root, &layout, "connect-audit").unwrap();
        let directory = made.path().join(DIRECTORY).display().to_string();
        for there in ["none", "tcp-events, web"] {
            let why = why().unwrap();
            for part in ["no BpfProgram connect-audit", &directory, &format!("has these: {there}."), "set --bpffs"] {
                assert!(why.contains(part), "{part}: {why}");
            }
            for home in ["tcp-events", "web"] {
                root.make_dir(&Path::new(DIRECTORY).join(home)).unwrap();
            }
            root.make_note(&layout::version(), "1").ok();
        }
        let home = Path::new(DIRECTORY).join("connect-audit");
        root.make_dir(&home.join(layout::map("bytes"))).unwrap();
        let of_another = why().unwrap();
        assert!(of_another.contains(&format!("{directory}/connect-audit has no map events")), "{of_another}");
        root.make_dir(&home.join(layout::map(EVENTS))).unwrap();
        assert_eq!(why(), None);
    }

    #[test]
    fn an_event_is_written_as_its_stream_is() {
        use sockeye_read_api::record::Record;

        let mut record = [0u8; 80];
        record[32..36].copy_from_slice(&4242u32.to_ne_bytes());
        record[40..44].copy_from_slice(b"curl");
        record[56..72].copy_from_slice(&"::ffff:10.1.2.3".parse::<std::net::Ipv6Addr>().unwrap().octets());
        record[72..74].copy_from_slice(&443u16.to_ne_bytes());
        record[74..76].copy_from_slice(&[6, 2]);
        let line = RecordWriter::new(shape().unwrap(), Owners::default()).line(&record);
        let Record::Record { value, undecoded, .. } = serde_json::from_slice(&line).unwrap() else { panic!() };
        assert_eq!(undecoded, None);
        let shown = ["pid", "comm", "address", "port", "protocol", "what"].map(|field| value[field].to_string());
        assert_eq!(shown, ["4242", r#""curl""#, r#""10.1.2.3""#, "443", "6", r#""FAILED""#]);
    }
}
