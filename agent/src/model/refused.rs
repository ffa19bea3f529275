//! `Tally`: the connections that guards refused, by pod, from what they count by cgroup and destination. Pure.
//!
//! A guard counts in a map of bounded size, which drops the destinations that were asked for least recently. So what is
//! added is the difference to the last reading, and a count never falls while the agent runs. What can't be given to a
//! pod is not added; once the pod is known, it is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::node::{NodeProgram, RefusedConnections};

use super::{kernel::MapInfo, page::RawEntry, per_cpu::is_per_cpu, pod::Pod};

/// The name of the map in which a guard counts, as ebpf/programs/sockeye_refusals.h defines it.
pub const COUNTS: &str = "sockeye_refusals";
/// The bytes of `struct sockeye_refusal`.
const KEY: usize = 32;
/// The bytes of `struct sockeye_refusal_count`.
const VALUE: usize = 32;
/// The shortest time from one report to the next.
const INTERVAL: Duration = Duration::from_secs(60);

/// The entry of one cgroup and one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    key: [u8; KEY],
    refused: u64,
    /// In nanoseconds since boot.
    first: u64,
    last: u64,
}

impl Count {
    /// Reads an entry; none if nothing was refused, as in a dry run.
    pub fn read(RawEntry { key, value }: &RawEntry) -> Option<Self> {
        let key: [u8; KEY] = key.as_slice().try_into().ok()?;
        let value = value.as_deref()?;
        let word = |at: usize| value.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        let count = Self { key, refused: word(0)?, first: word(16)?, last: word(24)? };
        (count.refused > 0).then_some(count)
    }

    /// Returns the ID of the caller's cgroup.
    pub fn cgroup(&self) -> u64 {
        self.key.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }
}

/// Returns whether a map has the layout in which guards count.
pub fn is_readable(info: &MapInfo) -> bool {
    (info.key_size as usize, info.value_size as usize) == (KEY, VALUE) && !is_per_cpu(info.map_type)
}

/// What was counted since the agent started, by BpfProgram.
#[derive(Debug, Default)]
pub struct Tally {
    programs: BTreeMap<String, ProgramTally>,
}

/// What one BpfProgram counted.
#[derive(Debug, Default)]
struct ProgramTally {
    map_id: u32,
    /// The counts that were added, by key.
    added: HashMap<[u8; KEY], u64>,
    /// By the pods' UIDs.
    pods: BTreeMap<String, Sum>,
}

/// The sum of one pod.
#[derive(Clone, Copy, Debug)]
struct Sum {
    count: u64,
    first: u64,
    last: u64,
}

impl Tally {
    /// Returns whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Forgets all BpfPrograms but these, and all pods but these.
    pub fn keep(&mut self, programs: &BTreeSet<&str>, pods: &[Pod]) {
        self.programs.retain(|name, _| programs.contains(name.as_str()));
        let there: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.programs.values_mut().for_each(|program| program.pods.retain(|uid, _| there.contains(uid.as_str())));
    }

    /// Adds a reading of a BpfProgram's map. `owner` returns the UID of the pod that a cgroup belongs to.
    pub fn add(&mut self, program: &str, map_id: u32, counts: &[Count], mut owner: impl FnMut(u64) -> Option<String>) {
        let tally = self.programs.entry(program.to_owned()).or_default();
        if tally.map_id != map_id {
            *tally = ProgramTally { map_id, ..ProgramTally::default() };
        }
        let before = std::mem::take(&mut tally.added);
        for count in counts {
            let known = before.get(&count.key).copied();
            let Some(uid) = owner(count.cgroup()) else {
                tally.added.extend(known.map(|known| (count.key, known)));
                continue;
            };
            tally.added.insert(count.key, count.refused);
            // An entry that was dropped and made anew begins at zero.
            let more = count.refused.checked_sub(known.unwrap_or(0)).unwrap_or(count.refused);
            if more > 0 {
                let sum = tally.pods.entry(uid).or_insert(Sum { count: 0, first: count.first, last: count.last });
                sum.count = sum.count.saturating_add(more);
                sum.first = sum.first.min(count.first);
                sum.last = sum.last.max(count.last);
            }
        }
    }

    /// Returns the pods that were refused something last, by BpfProgram. `time_of_day` converts nanoseconds since boot.
    pub fn report(
        &self,
        pods: &[Pod],
        time_of_day: impl Fn(u64) -> Option<Timestamp>,
    ) -> BTreeMap<String, Vec<RefusedConnections>> {
        let by_uid: HashMap<&str, &Pod> = pods.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
        let time = |since_boot| time_of_day(since_boot).map_or_else(String::new, seconds);
        let entry = |(uid, sum): &(&String, &Sum)| {
            let pod = by_uid.get(uid.as_str())?;
            Some(RefusedConnections {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                count: i64::try_from(sum.count).unwrap_or(i64::MAX),
                since_time: time(sum.first),
                last_time: time(sum.last),
            })
        };
        let of_program = |(name, tally): (&String, &ProgramTally)| {
            let mut latest: Vec<(&String, &Sum)> = tally.pods.iter().collect();
            latest.sort_by_key(|(_, sum)| Reverse(sum.last));
            let mut listed: Vec<_> = latest.iter().filter_map(entry).take(NodeProgram::MAX_REFUSED).collect();
            listed.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
            (!listed.is_empty()).then(|| (name.clone(), listed))
        };
        self.programs.iter().filter_map(of_program).collect()
    }
}

/// Writes a time in whole seconds.
fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Holds back reports: the first change at once, then one a minute at most, and none without a change.
#[derive(Debug, Default)]
pub struct ReportThrottle {
    reported: BTreeMap<String, Vec<RefusedConnections>>,
    last: Option<Instant>,
}

impl ReportThrottle {
    /// Returns what is to be reported now, if anything is.
    pub fn next(
        &mut self,
        counted: BTreeMap<String, Vec<RefusedConnections>>,
        now: Instant,
    ) -> Option<BTreeMap<String, Vec<RefusedConnections>>> {
        let waits = self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL);
        if waits || counted == self.reported {
            return None;
        }
        self.last = Some(now);
        self.reported.clone_from(&counted);
        Some(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn entry(cgroup: u64, port: u16, refused: u64, at: u64) -> RawEntry {
        let mut key = vec![0; KEY];
        key[..8].copy_from_slice(&cgroup.to_ne_bytes());
        key[24..26].copy_from_slice(&port.to_ne_bytes());
        let value = [refused, 5, at * SECOND, (at + 1) * SECOND].map(u64::to_ne_bytes).concat();
        RawEntry { key, value: Some(value) }
    }

    fn count(cgroup: u64, port: u16, refused: u64, at: u64) -> Count {
        Count::read(&entry(cgroup, port, refused, at)).unwrap()
    }

    fn pods(uids: impl IntoIterator<Item = u64>) -> Vec<Pod> {
        let pod = |n: u64| Pod {
            uid: n.to_string(),
            namespace: "shop".to_owned(),
            name: format!("pod-{n:03}"),
            ..Pod::default()
        };
        uids.into_iter().map(pod).collect()
    }

    /// Each pod has the cgroup of its number.
    fn add(tally: &mut Tally, map_id: u32, counts: &[Count]) {
        tally.add("guard", map_id, counts, |cgroup| (cgroup < 1000).then(|| cgroup.to_string()));
    }

    fn report(tally: &Tally, pods: &[Pod]) -> Vec<RefusedConnections> {
        let since_1970 = |ns: u64| Timestamp::from_nanosecond(ns.into()).ok();
        tally.report(pods, since_1970).remove("guard").unwrap_or_default()
    }

    fn counts_of(tally: &Tally, pods: &[Pod]) -> Vec<(String, i64)> {
        report(tally, pods).into_iter().map(|pod| (pod.uid, pod.count)).collect()
    }

    #[test]
    fn a_dry_run_and_another_layout_are_no_counts() {
        assert_eq!(Count::read(&entry(1, 80, 0, 1)), None);
        assert_eq!(Count::read(&RawEntry { key: vec![0; 4], ..entry(1, 80, 1, 1) }), None);
        assert_eq!(Count::read(&RawEntry { value: None, ..entry(1, 80, 1, 1) }), None);
        assert_eq!(Count::read(&RawEntry { value: Some(vec![1; 8]), ..entry(1, 80, 1, 1) }), None);
        let info = |key_size, value_size| MapInfo { key_size, value_size, ..MapInfo::default() };
        assert!(is_readable(&info(32, 32)) && !is_readable(&info(32, 8)));
    }

    #[test]
    fn counts_are_added_up_by_pod_and_never_fall() {
        let (mut tally, pods) = (Tally::default(), pods([1, 2]));
        add(&mut tally, 7, &[count(1, 80, 2, 10), count(1, 443, 1, 20), count(2, 80, 4, 30)]);
        let reported = report(&tally, &pods);
        assert_eq!(
            reported[0],
            RefusedConnections {
                namespace: "shop".to_owned(),
                name: "pod-001".to_owned(),
                uid: "1".to_owned(),
                count: 3,
                since_time: "1970-01-01T00:00:10Z".to_owned(),
                last_time: "1970-01-01T00:00:21Z".to_owned(),
            }
        );
        // One entry was dropped, one was dropped and made anew, and one grew.
        add(&mut tally, 7, &[count(1, 80, 1, 50), count(2, 80, 6, 30)]);
        assert_eq!(counts_of(&tally, &pods), [("1".to_owned(), 4), ("2".to_owned(), 6)]);
        // The map was made anew.
        add(&mut tally, 8, &[count(1, 80, 1, 60)]);
        assert_eq!(counts_of(&tally, &pods), [("1".to_owned(), 1)]);
    }

    #[test]
    fn what_belongs_to_no_known_pod_is_added_once_it_does() {
        let (mut tally, pods) = (Tally::default(), pods([1]));
        let counts = [count(1, 80, 3, 10)];
        tally.add("guard", 7, &counts, |_| None);
        assert!(report(&tally, &pods).is_empty());
        add(&mut tally, 7, &counts);
        tally.add("guard", 7, &[count(1, 80, 5, 10)], |_| None);
        add(&mut tally, 7, &[count(1, 80, 5, 10)]);
        assert_eq!(counts_of(&tally, &pods), [("1".to_owned(), 5)], "nothing is added twice");
    }

    #[test]
    fn the_pods_that_were_refused_last_are_reported_and_those_that_are_gone_forgotten() {
        let (mut tally, mut all) = (Tally::default(), pods(1..=20));
        let counts: Vec<Count> = (1..=20).map(|n| count(n, 80, 1, n)).collect();
        add(&mut tally, 7, &counts);
        let uids = |reported: Vec<(String, i64)>| -> Vec<u64> {
            reported.into_iter().map(|(uid, _)| uid.parse().unwrap()).collect()
        };
        assert_eq!(uids(counts_of(&tally, &all)), (13..=20).collect::<Vec<u64>>());
        all.truncate(5);
        tally.keep(&["guard"].into(), &all);
        assert_eq!(tally.programs["guard"].pods.len(), 5);
        tally.keep(&[].into(), &all);
        assert!(tally.is_empty());
    }

    #[test]
    fn a_change_is_reported_at_once_then_once_a_minute_and_nothing_without_a_change() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let counted = |count: i64| {
            BTreeMap::from([("guard".to_owned(), vec![RefusedConnections { count, ..RefusedConnections::default() }])])
        };
        let mut throttle = ReportThrottle::default();
        assert_eq!(throttle.next(BTreeMap::new(), at(0)), None);
        assert_eq!(throttle.next(counted(1), at(1)), Some(counted(1)));
        assert_eq!(throttle.next(counted(2), at(60)), None);
        assert_eq!(throttle.next(counted(3), at(61)), Some(counted(3)));
        assert_eq!(throttle.next(counted(3), at(1000)), None);
        assert_eq!(throttle.next(BTreeMap::new(), at(1001)), Some(BTreeMap::new()), "the guard is gone");
    }
}
