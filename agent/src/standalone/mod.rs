//! A node without a cluster: BpfPrograms are manifests in a folder, as the kubelet reads static pods, and their
//! statuses are written beside them.
//!
//! | file | noun |
//! |---|---|
//! | this one | the loop that reads the folder and writes to it |
//! | [`folder`] | the folder: its manifests, the assignment that follows from them, their statuses |
//! | [`manifest`] | one manifest: read, validated as the operator does it |
//! | [`pod_list`] | a file that lists the node's pods |
//! | [`table`] | the statuses, as `kubectl get bpfprograms` prints them |

pub mod folder;
pub mod manifest;
pub mod pod_list;
pub mod table;

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use self::folder::Folder;
use crate::{
    control::{
        Controller,
        event::{Effect, Event, Report},
        fetches::Refused,
        newest::Newest,
        run,
    },
    node::{Node, watch::Watch},
    read_api::{ReadApi, Sources, inquirer::Inquirer, objects::NoObjects, refused},
};

/// The folder is scanned at this interval, whether or not anything is reported of it.
const SCAN: Duration = Duration::from_secs(2);

/// Runs the manifests of a folder, and prints their table whenever it changes. `once`: ends after the first pass.
///
/// # Errors
/// Fails where the folder can't be read or written; and, once, where anything is not in effect as its manifest says.
pub async fn run<N: Node + Send + 'static>(
    controller: Controller<N>,
    mut folder: Folder,
    once: bool,
    read_api: &mut ReadApi,
) -> Result<()> {
    let (on_effect, Inboxes { reports, mut fetches, mut revisions }) = channels(read_api.inquirer());
    let (events, mut controlling) = run::run(controller, on_effect)?;
    read_api.serve(Sources {
        node_name: folder.node_name().to_owned(),
        events: events.clone(),
        objects: Arc::new(NoObjects),
    })?;
    // Ends with this function.
    let mut counting = JoinSet::new();
    counting.spawn(refused::follow(read_api.inquirer(), events.clone()));
    let gap = "an agent without a cluster does not hook into the container runtime";
    events.send(Event::RuntimeChanged(Some(gap.to_owned())));
    let (mut watch, mut happenings) = Watch::new();
    let directories = folder.directories().map(|directory| (directory.to_owned(), String::new()));
    watch.cover(directories.collect::<Vec<_>>());
    let mut assigned = None;
    loop {
        if folder.scan()? || assigned.is_none() {
            let assignment = Arc::new(folder.assignment());
            assigned = Some(Arc::clone(&assignment));
            events.send(Event::AssignmentChanged(assignment));
        }
        tokio::select! {
            ended = controlling.ended() => match ended? {},
            report = reports.take() => {
                // It says nothing of manifests that were read after its pass began: another one follows.
                let assignments = report.assignment.as_ref().zip(assigned.as_ref());
                if !assignments.is_some_and(|(reported, newest)| Arc::ptr_eq(reported, newest)) {
                    continue;
                }
                if take_report(&mut folder, &report, once)?.is_break() {
                    return Ok(());
                }
            }
            // All objects that are assigned are at hand.
            Some(digest) = fetches.recv() => {
                let bytes = Err(Refused { why: "no manifest holds it any more".to_owned(), retry_after: SCAN });
                events.send(Event::BytesArrived { digest, bytes });
            }
            Some((program, name)) = revisions.recv() => {
                let why = "an earlier agent ran it, and no manifest holds it any more".to_owned();
                events.send(Event::RevisionArrived { program, name, answer: Err(why) });
            }
            // Read or not: what happened is found by the scan.
            Ok(_) = happenings.next() => {}
            // What inotify does not report, as where the machine gives no more of it.
            () = sleep(SCAN) => {}
        }
    }
}

/// What the controller's effects become.
struct Inboxes {
    reports: Arc<Newest<Box<Report>>>,
    fetches: mpsc::UnboundedReceiver<String>,
    /// BpfPrograms, and names of their revisions.
    revisions: mpsc::UnboundedReceiver<(String, String)>,
}

/// Returns what takes the controller's effects, and where they come out.
fn channels(inquirer: Inquirer) -> (impl FnMut(Effect) + Send + 'static, Inboxes) {
    let reports = Arc::new(Newest::default());
    let (fetch, fetches) = mpsc::unbounded_channel();
    let (fetch_revision, revisions) = mpsc::unbounded_channel();
    let inboxes = Inboxes { reports: Arc::clone(&reports), fetches, revisions };
    let on_effect = move |effect| match effect {
        Effect::WriteStatus(report) => drop(reports.put(report)),
        Effect::FetchBytes(digest) => drop(fetch.send(digest)),
        Effect::AnswerInquiry(id, inspection) => inquirer.answer(id, inspection),
        Effect::FetchRevision { program, name } => drop(fetch_revision.send((program, name))),
        // Nothing is on trial, and nobody asks before container starts.
        _ => {}
    };
    (on_effect, inboxes)
}

/// Writes a report beside the manifests, and prints their table if it changed. Breaks if it is to be the only report.
fn take_report(folder: &mut Folder, report: &Report, once: bool) -> Result<ControlFlow<()>> {
    if let Some(table) = folder.write(report, Timestamp::now())? {
        print!("{table}");
    }
    if !once {
        return Ok(ControlFlow::Continue(()));
    }
    let unready = folder.unready();
    ensure!(unready.is_empty(), "not as its manifest says: {}", unready.join(", "));
    Ok(ControlFlow::Break(()))
}
