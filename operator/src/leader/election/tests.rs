use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::leader::lease::created;

fn lease(holder: &str, version: &str) -> Arc<Lease> {
    let mut lease = created("n", holder, LEASE_DURATION, Timestamp::UNIX_EPOCH);
    lease.metadata.resource_version = Some(version.to_owned());
    Arc::new(lease)
}

/// Returns a leader that created the Lease as version 1.
fn leader() -> (Election, Instant) {
    let start = Instant::now();
    let mut election = Election::new("a".to_owned(), start);
    assert_eq!(election.handle(Event::Tick, start), [Effect::Send(Request::Read)]);
    let read = Event::Answered(Answer::Read(None));
    assert_eq!(election.handle(read, start), [Effect::Send(Request::Create)]);
    let created = Event::Answered(Answer::Written(lease("a", "1")));
    assert_eq!(election.handle(created, start), [Effect::Lead(start + RENEW_DEADLINE)]);
    assert_eq!(election.wake_at(), Some(start + RENEW_INTERVAL));
    (election, start)
}

fn renew(election: &mut Election, at: Instant) {
    let effects = election.handle(Event::Tick, at);
    assert_eq!(effects, [Effect::Send(Request::Replace(lease("a", "1"), Change::Renew))]);
}

#[test]
fn a_renewal_counts_from_when_it_was_sent() {
    let (mut election, start) = leader();
    let sent = start + RENEW_INTERVAL;
    renew(&mut election, sent);
    let answered = Event::Answered(Answer::Written(lease("a", "2")));
    let effects = election.handle(answered, sent + Duration::from_secs(1));
    assert_eq!(effects, [Effect::Renewed(sent + RENEW_DEADLINE)]);
}

#[test]
fn a_write_that_others_do_not_see_is_no_renewal() {
    let (mut election, start) = leader();
    renew(&mut election, start + RENEW_INTERVAL);
    let same = Event::Answered(Answer::Written(lease("a", "1")));
    assert_eq!(election.handle(same, start + RENEW_INTERVAL), []);
    assert_eq!(election.handle(Event::Tick, start + RENEW_DEADLINE)[0], Effect::End(End::Late));
    assert_eq!((election.handle(Event::Tick, start + RENEW_DEADLINE), election.wake_at()), (vec![], None));
}

#[test]
fn a_lease_in_other_hands_is_lost_once_it_is_read() {
    for (other, end) in [("b", Some("b".to_owned())), ("", None)] {
        let (mut election, start) = leader();
        let seen = Event::Watched(Some(lease(other, "2")));
        assert_eq!(election.handle(seen, start), [Effect::Send(Request::Read)], "the watch may be late");
        let read = Event::Answered(Answer::Read(Some(lease(other, "2"))));
        assert_eq!(election.handle(read, start), [Effect::End(End::Taken(end))]);
    }
}

#[test]
fn a_candidate_that_is_told_to_stop_gives_up_what_it_is_about_to_get() {
    let start = Instant::now();
    let mut election = Election::new("a".to_owned(), start);
    election.handle(Event::Tick, start);
    election.handle(Event::Answered(Answer::Read(None)), start);
    assert_eq!(election.handle(Event::Stop, start), []);
    let created = lease("a", "1");
    let effects = election.handle(Event::Answered(Answer::Written(Arc::clone(&created))), start);
    assert_eq!(effects, [Effect::Send(Request::Replace(created, Change::Release))]);
    let released = Event::Answered(Answer::Written(lease("", "2")));
    assert_eq!(election.handle(released, start), [Effect::End(End::Stopped)]);
}
