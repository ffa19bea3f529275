//! The agent's metrics: their server, and what it asks the controller at each scrape. IO: one listening socket; the
//! runs of programs, read through `kernel`.
//!
//! The controller is asked as the read API asks it, by the same [`Inquirer`]: a few BpfPrograms at a time, so that no
//! answer holds up its thread.

use std::{convert::Infallible, os::fd::AsFd as _, sync::Arc, time::Duration};

use kube::Client;
use prometheus_client::registry::Registry;
use sockeye_metrics::{
    AgentMetrics,
    agent::{AgentState, FunctionRuns, ProgramMetrics},
    serve::{Asked, Error, Settings, Source, serve},
};

use crate::{
    control::inspection::{Inquiry, InspectedProgram, Inspection},
    kernel::{
        Fd,
        statistics::{self, RunProbe},
    },
    read_api::inquirer::Inquirer,
};

/// The BpfPrograms of one inquiry.
const AT_ONCE: usize = 8;

/// Serves the metrics of an agent until the process ends, if they are to be served; otherwise it never ends.
///
/// # Errors
/// Fails where the port can't be opened, or the certificate can't be used.
pub async fn run(
    client: Client,
    settings: Settings,
    (counters, metrics): (Registry, AgentMetrics),
    inquirer: Inquirer,
) -> Result<Infallible, Error> {
    if settings.port == 0 {
        std::future::pending::<()>().await;
    }
    let protection = settings.protection(client)?;
    let probe = Arc::new(RunProbe::default());
    let ask = move || {
        let (inquirer, metrics, probe) = (inquirer.clone(), metrics.clone(), Arc::clone(&probe));
        Box::pin(async move { metrics.scrape(state(&inquirer, probe).await.as_ref()) }) as Asked
    };
    serve(settings.port, protection, Source { counters, ask: Box::new(ask) }).await
}

/// Asks the controller; nothing where it is busy, or has not looked at the node yet.
async fn state(inquirer: &Inquirer, probe: Arc<RunProbe>) -> Option<AgentState> {
    let Ok(Inspection::Node(node)) = inquirer.ask(Inquiry::Node).await else { return None };
    let counts_runs = tokio::task::spawn_blocking(move || probe.counts_runs().ok()).await.ok()?;
    let mut programs = Vec::new();
    for names in node.lists.programs.chunks(AT_ONCE) {
        let Ok(Inspection::Programs(some)) = inquirer.ask(Inquiry::Programs(names.to_vec())).await else {
            return None;
        };
        let measured = tokio::task::spawn_blocking(move || some.into_iter().map(measured).collect::<Vec<_>>());
        programs.extend(measured.await.ok()?);
    }
    Some(AgentState { counts_runs, programs })
}

/// Reads what the kernel counted of a BpfProgram. A map that is another's counts there.
fn measured(InspectedProgram { status, detail, descriptors }: InspectedProgram) -> ProgramMetrics {
    let own = detail.maps.iter().filter(|map| map.map_ref.is_none());
    ProgramMetrics {
        state: format!("{:?}", status.state),
        links: status.links,
        pods: status.pods,
        map_bytes: own.map(|map| map.memlock_bytes).sum(),
        entries: status.entries.as_ref().map(|entries| (entries.wanted, entries.applied)),
        runs: descriptors.programs.into_iter().filter_map(runs).collect(),
        name: status.name,
    }
}

fn runs((function, fd): (String, Fd)) -> Option<FunctionRuns> {
    let counted =
        statistics::runs(fd.as_fd()).inspect_err(|error| tracing::debug!(%error, function, "its runs")).ok()?;
    Some(FunctionRuns { function, count: counted.count, time: Duration::from_nanos(counted.nanoseconds) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sockeye_crds::{
        node::{EntryCounts, LoadedMap, NodeProgram, ProgramDetail, State},
        program::MapRef,
    };

    use super::*;
    use crate::node::handles::Descriptors;

    #[test]
    fn a_programs_own_maps_count_and_those_of_others_do_not() {
        let map = |memlock_bytes: i64, map_ref: Option<MapRef>| -> LoadedMap {
            let map = json!({"name": "m", "kernelName": "m", "id": 1, "mapType": "Array", "flags": 0, "keySizeBytes": 4,
                "valueSizeBytes": 4, "maxEntries": 1, "memlockBytes": memlock_bytes, "frozen": false, "used": true});
            LoadedMap { map_ref, ..serde_json::from_value(map).unwrap() }
        };
        let detail = ProgramDetail {
            maps: vec![
                map(4096, None),
                map(8192, Some(MapRef { program: "q".to_owned(), name: "m".to_owned() })),
                map(100, None),
            ],
            ..ProgramDetail::default()
        };
        let status = NodeProgram {
            name: "p".to_owned(),
            state: State::Attached,
            links: 3,
            pods: 2,
            entries: Some(EntryCounts { wanted: 5, applied: 4 }),
            ..NodeProgram::default()
        };
        let program = measured(InspectedProgram { status, detail, descriptors: Descriptors::default() });
        let expected = ProgramMetrics {
            name: "p".to_owned(),
            state: "Attached".to_owned(),
            links: 3,
            pods: 2,
            map_bytes: 4196,
            entries: Some((5, 4)),
            runs: Vec::new(),
        };
        assert_eq!(program, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_does_not_answer_leaves_the_counters_alone() {
        assert_eq!(state(&Inquirer::default(), Arc::default()).await, None);
    }
}
