//! Bounds the size of a BpfNodeDetail's status, and counts the items left out. Pure.

use sockeye_crds::{BpfNodeDetailStatus, node::OmittedDetail, size::json_len};

use super::{
    counts::{count, excess},
    limits::{MAX_DRAINING, MAX_RETAINED},
};

/// The maximum size of a status in bytes of JSON.
pub const MAX_BYTES: usize = 512 << 10;
/// The size beyond which items are left out: the numbers of those are added.
const MAX_BYTES_OF_ITEMS: usize = MAX_BYTES - 256;

/// Leaves items out of a status until it fits. `omitted` counts those left out before.
///
/// Items go in this order: attach orders and links, in steps, so that the first of each stay longest; verifier logs;
/// BpfPrograms, the last first; retained maps.
pub fn fit(mut status: BpfNodeDetailStatus, mut omitted: OmittedDetail) -> BpfNodeDetailStatus {
    omitted.retained += shorten(&mut status.retained, MAX_RETAINED);
    omitted.draining += shorten(&mut status.draining, MAX_DRAINING);
    // The size of a status costs as much as writing it out: of one that fits, it is taken once.
    if json_len(&status) > MAX_BYTES_OF_ITEMS {
        shrink(&mut status, &mut omitted);
    }
    status.omitted = (omitted != OmittedDetail::default()).then_some(omitted);
    status
}

/// Leaves items out of a status that does not fit.
fn shrink(status: &mut BpfNodeDetailStatus, omitted: &mut OmittedDetail) {
    for max in [16, 4, 0] {
        omitted.attach_order += shorten(&mut status.attach_order, max);
        omitted.links += status.programs.iter_mut().map(|program| shorten(&mut program.links, max)).sum::<i64>();
        if json_len(status) <= MAX_BYTES_OF_ITEMS {
            return;
        }
    }
    let logs = status.programs.iter_mut().filter_map(|program| program.verifier_log.take());
    omitted.verifier_logs += count(logs.count());
    let mut over = json_len(status).saturating_sub(MAX_BYTES_OF_ITEMS);
    while over > 0
        && let Some(program) = status.programs.pop()
    {
        over = over.saturating_sub(json_len(&program));
        omitted.programs += 1;
    }
    while over > 0
        && let Some(map) = status.retained.pop()
    {
        over = over.saturating_sub(json_len(&map));
        omitted.retained += 1;
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
    use sockeye_crds::node::{AttachedLink, ProgramDetail, RetainedMap};

    use super::{super::limits::MAX_LINKS, *};

    fn detail(name: &str, links: usize) -> ProgramDetail {
        let link = |n: usize| AttachedLink {
            program: "my_prog".to_owned(),
            id: Some(n as i64),
            link_type: Some("cgroup".to_owned()),
            program_id: 1,
            attach_type: "cgroup_sock_ops".to_owned(),
            cgroup_id: Some(1_000_000),
            cgroup_path: Some(format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{n:036}.slice")),
            pod: Some(format!("team-of-billing/invoices-{n:010}")),
            container: None,
            map: None,
            map_id: None,
            in_effect: true,
            pin_path: format!("/sys/fs/bpf/sockeye/{name}/links/my_prog/{n:010}"),
        };
        ProgramDetail { name: name.to_owned(), links: (0..links).map(link).collect(), ..ProgramDetail::default() }
    }

    fn fitted(programs: impl Iterator<Item = ProgramDetail>, retained: Vec<RetainedMap>) -> BpfNodeDetailStatus {
        let whole = BpfNodeDetailStatus { programs: programs.collect(), retained, ..BpfNodeDetailStatus::default() };
        let status = fit(whole, OmittedDetail::default());
        assert!(json_len(&status) <= MAX_BYTES);
        status
    }

    #[test]
    fn a_status_that_is_too_large_keeps_the_first_links() {
        let whole = fitted((10..20).map(|n| detail(&format!("p-{n}"), MAX_LINKS)), Vec::new());
        assert_eq!(whole.omitted, None);
        let status = fitted((10..50).map(|n| detail(&format!("p-{n}"), MAX_LINKS)), Vec::new());
        assert!(status.programs.iter().all(|program| program.links.len() == 16), "{:?}", status.omitted);
        assert_eq!(status.omitted, Some(OmittedDetail { links: 40 * 48, ..OmittedDetail::default() }));
    }

    #[test]
    fn what_follows_links_and_logs_goes_from_the_end() {
        let noted = |n: usize| ProgramDetail {
            notes: vec!["n".repeat(500); 4],
            verifier_log: Some("v".repeat(2000)),
            ..detail(&format!("p-{n:03}"), 1)
        };
        let retained = RetainedMap { program: "p".into(), name: "m".into(), id: 1, pin_path: "/p".into() };
        let status = fitted((0..500).map(noted), vec![retained; MAX_RETAINED + 7]);
        let omitted = status.omitted.unwrap();
        assert_eq!((omitted.links, omitted.verifier_logs, omitted.retained), (500, 500, 7));
        assert!(omitted.programs > 0 && status.programs[0].name == "p-000");
        assert_eq!(status.programs.len() as i64 + omitted.programs, 500);
    }
}
