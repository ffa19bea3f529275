//! Bounds the size of a status and counts the items left out. Pure.

use std::io;

use serde::Serialize;
use sockeye_crds::{
    BpfNodeStatus,
    node::{Details, HeldProgram, Truncated},
};

use super::{
    counts::{count, excess},
    limits::MAX_RETAINED,
};

/// The size of a status in bytes of JSON beyond which details are left out.
const MAX_BYTES: usize = 240 << 10;
/// The size beyond which the IDs in the list of BpfPrograms are left out.
const MAX_BYTES_WITHOUT_DETAILS: usize = 256 << 10;

/// Leaves items out of a status until it fits. `cut` counts those left out before.
///
/// Items go in this order: run orders and links, in steps, so that the first of each stay longest; verifier logs;
/// details, from the last BpfProgram on, except their latest drift if there is room for it; retained maps; IDs. The
/// list of BpfPrograms stays whole.
pub fn truncate(mut status: BpfNodeStatus, mut cut: Truncated) -> BpfNodeStatus {
    cut.retained += shorten(&mut status.retained, MAX_RETAINED);
    // The size of a status costs as much as writing it out: of one that fits, it is taken once.
    if bytes(&status) > MAX_BYTES {
        shrink(&mut status, &mut cut);
    }
    status.truncated = (cut != Truncated::default()).then_some(cut);
    status
}

/// Leaves items out of a status that does not fit.
fn shrink(status: &mut BpfNodeStatus, cut: &mut Truncated) {
    for max in [16, 4, 0] {
        cut.order += shorten(&mut status.order, max);
        cut.links += status.details.iter_mut().map(|details| shorten(&mut details.links, max)).sum::<i64>();
        if bytes(status) <= MAX_BYTES {
            return;
        }
    }
    cut.logs += count(status.details.iter_mut().filter_map(|details| details.verifier_log.take()).count());
    let mut over = bytes(status).saturating_sub(MAX_BYTES);
    cut.details += leave_out_details(&mut status.details, &mut over);
    while over > 0
        && let Some(map) = status.retained.pop()
    {
        over = over.saturating_sub(bytes(&map));
        cut.retained += 1;
    }
    let mut over = bytes(status).saturating_sub(MAX_BYTES_WITHOUT_DETAILS);
    cut.maps += leave_out_ids(&mut status.programs, |program| &mut program.map_ids, &mut over);
    cut.functions += leave_out_ids(&mut status.programs, |program| &mut program.program_ids, &mut over);
}

/// Leaves out details, the last first, until `over` bytes are gone, and returns how many. Their latest drift goes last.
fn leave_out_details(all: &mut Vec<Details>, over: &mut usize) -> i64 {
    let mut removed = 0;
    for at in (0..all.len()).rev() {
        if *over == 0 {
            break;
        }
        let details = all.remove(at);
        let mut freed = bytes(&details);
        removed += 1;
        let Details { name, mut drift, .. } = details;
        if let Some(latest) = drift.pop() {
            let rest = Details { name, drift: vec![latest], ..Details::default() };
            freed = freed.saturating_sub(bytes(&rest));
            all.insert(at, rest);
        }
        *over = over.saturating_sub(freed);
    }
    while *over > 0
        && let Some(rest) = all.pop()
    {
        *over = over.saturating_sub(bytes(&rest));
    }
    removed
}

/// Leaves out the IDs of programs, the last first, until `over` bytes are gone, and returns how many.
fn leave_out_ids(
    programs: &mut [HeldProgram],
    ids: impl Fn(&mut HeldProgram) -> &mut Vec<i64>,
    over: &mut usize,
) -> i64 {
    let mut removed = 0;
    for program in programs.iter_mut().rev() {
        if *over == 0 {
            break;
        }
        let taken = std::mem::take(ids(program));
        *over = over.saturating_sub(bytes(&taken));
        removed += count(taken.len());
    }
    removed
}

/// Returns the size of a value as JSON.
fn bytes(value: &impl Serialize) -> usize {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).map_or(0, |()| length.0)
}

/// Counts what is written, and keeps none of it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts a list at its end, and returns the number of items that went.
fn shorten<T>(list: &mut Vec<T>, max: usize) -> i64 {
    let excess = excess(list.len(), max);
    list.truncate(max);
    excess
}

#[cfg(test)]
mod tests {
    use sockeye_crds::{
        Reason,
        node::{AttachedLink, Drift, DriftKind, RetainedMap, State},
    };

    use super::{super::limits::MAX_LINKS, *};

    fn details(name: &str, links: usize) -> Details {
        let link = |n: usize| AttachedLink {
            program: "my_prog".to_owned(),
            id: n as i64,
            link_type: "cgroup".to_owned(),
            program_id: 1,
            attach_type: "cgroup_sock_ops".to_owned(),
            cgroup_id: Some(1_000_000),
            cgroup_path: Some(format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{n:036}.slice")),
            pod: Some(format!("team-of-billing/invoices-{n:010}")),
            container: None,
            map: None,
            map_id: None,
            in_effect: true,
            pin_path: format!("/sys/fs/bpf/sockeye/v1/{name}/links/my_prog/{n:010}"),
        };
        Details { name: name.to_owned(), links: (0..links).map(link).collect(), ..Details::default() }
    }

    #[test]
    fn a_status_that_is_too_large_keeps_the_first_links_and_the_latest_drift() {
        let twenty: Vec<Details> = (10..30).map(|n| details(&format!("p-{n}"), MAX_LINKS)).collect();
        let drift = Drift { seen_at: String::new(), kind: DriftKind::LinkDetached, message: "m".into(), count: 1 };
        let status = truncate(BpfNodeStatus { details: twenty, ..BpfNodeStatus::default() }, Truncated::default());
        assert!(status.details.iter().all(|details| details.links.len() == 16), "{:?}", status.truncated);
        assert_eq!(status.truncated.unwrap().links, 20 * 48);

        let message = Some("x".repeat(2000));
        let many = (0..200).map(|n| Details {
            message: message.clone(),
            drift: vec![drift.clone()],
            ..details(&format!("p-{n:03}"), 1)
        });
        let status =
            truncate(BpfNodeStatus { details: many.collect(), ..BpfNodeStatus::default() }, Truncated::default());
        assert!(serde_json::to_vec(&status).unwrap().len() <= MAX_BYTES);
        assert!(status.details.len() == 200 && status.details.iter().all(|details| details.drift == [drift.clone()]));
        assert!(status.truncated.unwrap().details > 0 && status.details[0].message.is_some());

        // All pins of 1000 BpfPrograms with the longest names and the most maps were removed at once.
        let all_drifted = (0..1000).map(|n| Details {
            drift: vec![Drift { message: "m".repeat(500), ..drift.clone() }; 8],
            ..details(&format!("{n:063}"), 1)
        });
        let programs = (0..1000).map(|n| HeldProgram {
            name: format!("{n:063}"),
            uid: "u".repeat(36),
            revision: Some(format!("{n:063}-0123456789")),
            state: State::Failed,
            reason: Some(Reason::BytecodeUnavailable),
            program_ids: vec![1_000_000],
            map_ids: vec![1_000_000; 128],
        });
        let status =
            BpfNodeStatus { details: all_drifted.collect(), programs: programs.collect(), ..BpfNodeStatus::default() };
        let status = truncate(status, Truncated::default());
        assert!(serde_json::to_vec(&status).unwrap().len() <= 256 << 10);
        assert_eq!(status.programs.len(), 1000);
        let cut = status.truncated.clone().unwrap();
        assert!((cut.details, cut.maps) == (1000, 128_000) && (1..=1000).contains(&cut.functions), "{cut:?}");

        let retained = RetainedMap { program: "p".into(), name: "m".into(), id: 1, pin_path: "/p".into() };
        let alone = BpfNodeStatus { retained: vec![retained; MAX_RETAINED + 7], ..BpfNodeStatus::default() };
        let alone = truncate(alone, Truncated::default());
        assert_eq!(alone.truncated.unwrap().retained, 7);
        let status = truncate(BpfNodeStatus { retained: alone.retained, ..status }, Truncated::default());
        assert!(serde_json::to_vec(&status).unwrap().len() <= 256 << 10);
        assert!(status.programs.len() == 1000 && status.truncated.unwrap().retained > 0);
    }
}
