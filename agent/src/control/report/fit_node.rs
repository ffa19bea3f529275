//! Bounds the size of a BpfNode's status, and counts the items left out. Pure.

use std::mem;

use sockeye_crds::{
    BpfNodeStatus,
    node::{NodeProgram, Omitted},
    size::json_len,
};

use super::counts::count;

/// The maximum size of a status in bytes of JSON, with its conditions.
pub const MAX_BYTES: usize = 320 << 10;
/// The room for what is added to a status that fits: two conditions, each with a message of [`MAX_MESSAGE`] bytes whose
/// characters may take six each, and the numbers of items left out.
///
/// [`MAX_MESSAGE`]: super::conditions
const ADDED_BYTES: usize = 2 * (6 * super::conditions::MAX_MESSAGE + 256) + 256;

/// Leaves items out of a status until it fits, from the last BpfProgram on: earlier drift, the latest drift, pods whose
/// connections were refused, warnings, messages, the IDs of maps, and those of programs, in this order. The list of
/// BpfPrograms stays whole.
pub fn fit(mut status: BpfNodeStatus) -> BpfNodeStatus {
    // The size of a status costs as much as writing it out: of one that fits, it is taken once.
    let mut over = json_len(&status).saturating_sub(MAX_BYTES - ADDED_BYTES);
    if over == 0 {
        return status;
    }
    let Omitted { drift, refused_pods, messages, map_ids, program_ids } = status.omitted.take().unwrap_or_default();
    let mut leaver = Leaver { programs: &mut status.programs, over: &mut over };
    let earlier = |program: &mut NodeProgram| {
        let latest = program.drift.len().saturating_sub(1);
        program.drift.drain(..latest).count()
    };
    status.omitted = Some(Omitted {
        drift: drift + leaver.leave_out(earlier) + leaver.leave_out(|program| mem::take(&mut program.drift).len()),
        refused_pods: refused_pods + leaver.leave_out(|program| mem::take(&mut program.refused_connections).len()),
        messages: messages
            + leaver.leave_out(|program| mem::take(&mut program.warnings).len())
            + leaver.leave_out(|program| usize::from(program.message.take().is_some())),
        map_ids: map_ids + leaver.leave_out(|program| mem::take(&mut program.map_ids).len()),
        program_ids: program_ids + leaver.leave_out(|program| mem::take(&mut program.program_ids).len()),
    });
    status
}

/// Leaves items of BpfPrograms out until so many bytes are gone.
struct Leaver<'a> {
    programs: &'a mut [NodeProgram],
    over: &'a mut usize,
}

impl Leaver<'_> {
    /// Takes items of one kind, those of the last BpfProgram first, and returns how many. `take` returns the number
    /// that it took of one BpfProgram.
    fn leave_out(&mut self, take: impl Fn(&mut NodeProgram) -> usize) -> i64 {
        let mut taken = 0;
        for program in self.programs.iter_mut().rev() {
            if *self.over == 0 {
                break;
            }
            // A list that is empty is not written at all: more goes than its items.
            let size = program.bytes();
            taken += count(take(program));
            *self.over = self.over.saturating_sub(size.saturating_sub(program.bytes()));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use sockeye_crds::{
        Reason,
        node::{Drift, DriftKind, RefusedConnections, State},
    };

    use super::*;

    fn drift(message: &str) -> Drift {
        Drift { seen_time: String::new(), kind: DriftKind::LinkDetached, message: message.to_owned(), count: 1 }
    }

    fn status(programs: usize, program: &NodeProgram) -> BpfNodeStatus {
        let named = |n: usize| NodeProgram { name: format!("{n:063}"), ..program.clone() };
        BpfNodeStatus { programs: (0..programs).map(named).collect(), ..BpfNodeStatus::default() }
    }

    fn fitted(programs: usize, program: &NodeProgram) -> (BpfNodeStatus, Omitted) {
        let status = fit(status(programs, program));
        assert!(json_len(&status) <= MAX_BYTES - 2 * (6 * super::super::conditions::MAX_MESSAGE + 256));
        assert_eq!(status.programs.len(), programs, "the list stays whole");
        let omitted = status.omitted.clone().unwrap_or_default();
        (status, omitted)
    }

    #[test]
    fn a_status_that_fits_is_whole() {
        let program = NodeProgram { drift: vec![drift("m"); 8], message: Some("x".into()), ..NodeProgram::default() };
        assert_eq!(fit(status(20, &program)), status(20, &program));
    }

    #[test]
    fn earlier_drift_goes_first_then_the_latest_then_messages_then_ids() {
        let program = NodeProgram {
            uid: "u".repeat(36),
            revision: Some("0".repeat(64)),
            reason: Some(Reason::BytecodeUnavailable),
            state: State::Failed,
            ..NodeProgram::default()
        };
        let drifted = NodeProgram { drift: vec![drift(&"m".repeat(90)); 8], ..program.clone() };
        let (status, omitted) = fitted(500, &drifted);
        assert!(status.programs.iter().all(|program| !program.drift.is_empty()), "the latest stay longest");
        assert!(omitted.drift > 0 && status.programs[0].drift.len() == 8 && status.programs[499].drift.len() == 1);
        assert_eq!((omitted.messages, omitted.map_ids, omitted.program_ids), (0, 0, 0));

        let said = NodeProgram { message: Some("x".repeat(1000)), ..drifted.clone() };
        let (status, omitted) = fitted(500, &said);
        assert!(omitted.drift == 4000 && (1..500).contains(&omitted.messages), "{omitted:?}");
        assert!(status.programs[0].message.is_some() && status.programs[499].message.is_none());

        // A thousand BpfPrograms with the longest names and the most maps, all of whose pins were removed at once.
        let refused = RefusedConnections { name: "n".repeat(63), count: 1, ..RefusedConnections::default() };
        let largest = NodeProgram {
            map_ids: vec![1_000_000; 128],
            program_ids: vec![1_000_000],
            refused_connections: vec![refused; 8],
            ..said
        };
        let (_, omitted) = fitted(1000, &largest);
        assert_eq!((omitted.drift, omitted.refused_pods, omitted.messages), (8000, 8000, 1000));
        assert!(omitted.map_ids > 120_000, "{omitted:?}");
        assert!(fit(status).omitted.is_some_and(|omitted| omitted.messages < 500), "a status that fits stays as it is");
    }
}
