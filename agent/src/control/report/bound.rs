//! `bound`: a status that fits, and says what was left out. Pure.

use serde::Serialize;
use sockeye_crds::{
    BpfNodeStatus,
    node::{Details, HeldProgram, Truncated},
};

use super::count;

/// A BpfNode's status may have so many bytes as JSON; details beyond are cut, and counted.
const MAX_BYTES: usize = 240 << 10;
/// What is in the list of BpfPrograms may fill it up to this.
const MOST_BYTES: usize = 256 << 10;
/// So many maps of deleted BpfPrograms are shown.
const MAX_RETAINED: usize = 1024;

/// Cuts what is shown until the status fits: orders and links in steps, so that the first of each stay as long as may be; then
/// logs, then details from the end, of which what others did last is kept where there is room; then retained maps, then IDs.
/// The list of BpfPrograms is whole, always. `cut` is what was left out before.
pub fn bound(mut status: BpfNodeStatus, mut cut: Truncated) -> BpfNodeStatus {
    cut.retained += shorten(&mut status.retained, MAX_RETAINED);
    for most in [16, 4, 0] {
        if bytes(&status) <= MAX_BYTES {
            break;
        }
        cut.order += shorten(&mut status.order, most);
        cut.links += status.details.iter_mut().map(|details| shorten(&mut details.links, most)).sum::<i64>();
    }
    if bytes(&status) > MAX_BYTES {
        cut.logs += count(status.details.iter_mut().filter_map(|details| details.verifier_log.take()).count());
    }
    let mut over = bytes(&status).saturating_sub(MAX_BYTES);
    for at in (0..status.details.len()).rev() {
        if over == 0 {
            break;
        }
        let details = status.details.remove(at);
        let mut freed = bytes(&details);
        cut.details += 1;
        let Details { name, mut drift, .. } = details;
        if let Some(last) = drift.pop() {
            let left = Details { name, drift: vec![last], ..Details::default() };
            freed = freed.saturating_sub(bytes(&left));
            status.details.insert(at, left);
        }
        over = over.saturating_sub(freed);
    }
    while over > 0
        && let Some(left) = status.details.pop()
    {
        over = over.saturating_sub(bytes(&left));
    }
    while over > 0
        && let Some(left) = status.retained.pop()
    {
        over = over.saturating_sub(bytes(&left));
        cut.retained += 1;
    }
    let mut over = bytes(&status).saturating_sub(MOST_BYTES);
    cut.maps += strip(&mut status.programs, |program| &mut program.map_ids, &mut over);
    cut.functions += strip(&mut status.programs, |program| &mut program.program_ids, &mut over);
    status.truncated = (cut != Truncated::default()).then_some(cut);
    status
}

/// Takes IDs from programs, the last first, until so many bytes are gone; how many went.
fn strip(programs: &mut [HeldProgram], ids: impl Fn(&mut HeldProgram) -> &mut Vec<i64>, over: &mut usize) -> i64 {
    let mut gone = 0;
    for program in programs.iter_mut().rev() {
        if *over == 0 {
            break;
        }
        let taken = std::mem::take(ids(program));
        *over = over.saturating_sub(bytes(&taken));
        gone += count(taken.len());
    }
    gone
}

/// How long something is as JSON.
fn bytes(of: &impl Serialize) -> usize {
    serde_json::to_vec(of).map_or(0, |json| json.len())
}

/// Cuts a list at its end; how many went.
fn shorten<T>(list: &mut Vec<T>, most: usize) -> i64 {
    let gone = list.len().saturating_sub(most);
    list.truncate(most);
    count(gone)
}

#[cfg(test)]
mod tests {
    use sockeye_crds::{
        Reason,
        node::{AttachedLink, Drift, DriftKind, RetainedMap, State},
    };

    use super::{super::MAX_LINKS, *};

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
    fn what_is_cut_keeps_the_first_links_and_what_others_did() {
        let twenty: Vec<Details> = (10..30).map(|n| details(&format!("p-{n}"), MAX_LINKS)).collect();
        let drift = Drift { seen_at: String::new(), kind: DriftKind::LinkDetached, message: "m".into(), count: 1 };
        let status = bound(BpfNodeStatus { details: twenty, ..BpfNodeStatus::default() }, Truncated::default());
        assert!(status.details.iter().all(|details| details.links.len() == 16), "{:?}", status.truncated);
        assert_eq!(status.truncated.unwrap().links, 20 * 48);

        let message = Some("x".repeat(2000));
        let many = (0..200).map(|n| Details {
            message: message.clone(),
            drift: vec![drift.clone()],
            ..details(&format!("p-{n:03}"), 1)
        });
        let status = bound(BpfNodeStatus { details: many.collect(), ..BpfNodeStatus::default() }, Truncated::default());
        assert!(serde_json::to_vec(&status).unwrap().len() <= MAX_BYTES);
        assert!(status.details.len() == 200 && status.details.iter().all(|details| details.drift == [drift.clone()]));
        assert!(status.truncated.unwrap().details > 0 && status.details[0].message.is_some());

        // Someone who removes all pins at once, of as many as a node may have, with long names and all the maps one may have.
        let everywhere = (0..1000).map(|n| Details {
            drift: vec![Drift { message: "m".repeat(500), ..drift.clone() }; 8],
            ..details(&format!("{n:063}"), 1)
        });
        let whole = (0..1000).map(|n| HeldProgram {
            name: format!("{n:063}"),
            uid: "u".repeat(36),
            revision: Some(format!("{n:063}-0123456789")),
            state: State::Failed,
            reason: Some(Reason::BytecodeUnavailable),
            program_ids: vec![1_000_000],
            map_ids: vec![1_000_000; 128],
        });
        let status =
            BpfNodeStatus { details: everywhere.collect(), programs: whole.collect(), ..BpfNodeStatus::default() };
        let status = bound(status, Truncated::default());
        assert!(serde_json::to_vec(&status).unwrap().len() <= 256 << 10);
        assert_eq!(status.programs.len(), 1000);
        let cut = status.truncated.clone().unwrap();
        assert!((cut.details, cut.maps) == (1000, 128_000) && (1..=1000).contains(&cut.functions), "{cut:?}");

        let retained = RetainedMap { program: "p".into(), name: "m".into(), id: 1, pin_path: "/p".into() };
        let alone = BpfNodeStatus { retained: vec![retained; MAX_RETAINED + 7], ..BpfNodeStatus::default() };
        let alone = bound(alone, Truncated::default());
        assert_eq!(alone.truncated.unwrap().retained, 7);
        let status = bound(BpfNodeStatus { retained: alone.retained, ..status }, Truncated::default());
        assert!(serde_json::to_vec(&status).unwrap().len() <= 256 << 10);
        assert!(status.programs.len() == 1000 && status.truncated.unwrap().retained > 0);
    }
}
