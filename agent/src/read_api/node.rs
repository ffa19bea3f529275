//! The answers about the node and its BpfPrograms. Those about all BpfPrograms are made a few at a time, as the client
//! takes them: of a node with thousands of links only that much is in memory.

use std::{os::fd::AsFd as _, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::stream;
use k8s_openapi::jiff::Timestamp;
use sockeye_read_api::{
    Failure,
    node::{Node, Program, Runs},
};

use super::{
    answers::{json, off_thread, unexpected},
    body::{Aborted, Parts},
    failures,
    inquirer::Inquirer,
};
use crate::{
    control::inspection::{Inquiry, InspectedNode, InspectedProgram, Inspection, Missing},
    kernel::{
        Fd,
        statistics::{self, RunProbe},
    },
};

/// The BpfPrograms of one part of an answer.
const AT_ONCE: usize = 8;

/// Answers about the node.
pub(super) async fn node(inquirer: &Inquirer, name: &str, probe: Arc<RunProbe>) -> Result<Parts, Failure> {
    let inspected = match inquirer.ask(Inquiry::Node).await? {
        Inspection::Node(node) => *node,
        Inspection::Missing(missing) => return Err(failures::missing(missing, "", None)),
        other => return Err(unexpected(&other)),
    };
    let names = inspected.lists.programs.clone();
    let (name, inquirer) = (name.to_owned(), inquirer.clone());
    let head = off_thread(move || json(&without_programs(name, inspected, &probe))).await??;
    let head = head.strip_suffix(b"}").unwrap_or(&head);
    let head = [head, b",\"programs\":["].concat().into();
    let walk = Walk { inquirer, names, at: 0, written: false, stage: Stage::Head(head) };
    Ok(Box::pin(stream::unfold(walk, Walk::next)))
}

/// Answers about one BpfProgram.
pub(super) async fn program(inquirer: &Inquirer, name: String) -> Result<Bytes, Failure> {
    let missing = |missing| failures::missing(missing, &name, None);
    match inquirer.ask(Inquiry::Programs(vec![name.clone()])).await? {
        Inspection::Programs(mut programs) => match programs.pop() {
            Some(program) => off_thread(move || json(&with_runs(program))).await?,
            None => Err(missing(Missing::Program)),
        },
        Inspection::Missing(why) => Err(missing(why)),
        other => Err(unexpected(&other)),
    }
}

fn without_programs(name: String, InspectedNode { facts, suspended, lists }: InspectedNode, probe: &RunProbe) -> Node {
    let counts_runs = probe.counts_runs().inspect_err(|error| tracing::debug!(%error, "are runs counted?"));
    Node {
        name,
        time: Timestamp::now().to_string(),
        facts,
        suspended,
        counts_runs: counts_runs.ok(),
        cpus: statistics::online_cpus().unwrap_or(1),
        programs: Vec::new(),
        retained: lists.retained,
        draining: lists.draining,
        attach_order: lists.attach_order,
    }
}

/// Adds the runs that the kernel has counted until now.
fn with_runs(InspectedProgram { status, detail, descriptors }: InspectedProgram) -> Program {
    let runs = |(name, fd): (String, Fd)| {
        let counted = statistics::runs(fd.as_fd()).inspect_err(|error| tracing::debug!(%error, name, "its runs"));
        let statistics::Runs { id, count, nanoseconds, recursion_misses } = counted.ok()?;
        Some(Runs { name, id, count, nanoseconds, recursion_misses })
    };
    let runs = descriptors.programs.into_iter().filter_map(runs).collect();
    Program { name: status.name.clone(), status, detail, runs }
}

/// A walk over the BpfPrograms.
struct Walk {
    inquirer: Inquirer,
    names: Vec<String>,
    /// The number of names that have been asked for.
    at: usize,
    /// A BpfProgram has been written.
    written: bool,
    stage: Stage,
}

enum Stage {
    Head(Bytes),
    Programs,
    End,
}

impl Walk {
    async fn next(mut self) -> Option<(Result<Bytes, Aborted>, Self)> {
        match std::mem::replace(&mut self.stage, Stage::Programs) {
            Stage::Head(head) => Some((Ok(head), self)),
            Stage::End => None,
            Stage::Programs if self.at == self.names.len() => {
                self.stage = Stage::End;
                Some((Ok(Bytes::from_static(b"]}")), self))
            }
            Stage::Programs => {
                let part = self.part().await.map_err(|failure| Aborted(failure.message));
                if part.is_err() {
                    self.stage = Stage::End;
                }
                Some((part, self))
            }
        }
    }

    /// Returns the next few. Those that have gone meanwhile are left out.
    async fn part(&mut self) -> Result<Bytes, Failure> {
        let names: Vec<String> = self.names.iter().skip(self.at).take(AT_ONCE).cloned().collect();
        self.at += names.len();
        let programs = match self.inquirer.ask(Inquiry::Programs(names)).await? {
            Inspection::Programs(programs) => programs,
            Inspection::Missing(missing) => return Err(failures::missing(missing, "", None)),
            other => return Err(unexpected(&other)),
        };
        let is_first = !self.written;
        self.written |= !programs.is_empty();
        off_thread(move || {
            let mut part = BytesMut::new();
            for (n, program) in programs.into_iter().enumerate() {
                if n > 0 || !is_first {
                    part.extend_from_slice(b",");
                }
                part.extend_from_slice(&json(&with_runs(program))?);
            }
            Ok(part.freeze())
        })
        .await?
    }
}
