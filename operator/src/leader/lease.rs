//! The Lease, as each write makes it, and what a candidate reads in it. IO: none.
//!
//! A write keeps whatever else the object has, such as labels.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};

/// The name of the Lease, in the release namespace.
pub const LEASE: &str = "sockeye-operator";

/// A candidate waits at most this long for a holder, whatever the Lease says.
const MAX_DURATION: Duration = Duration::from_secs(60);

/// Returns the identity of the holder; a Lease that was released has none.
pub fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Returns the version that a write of the Lease is based on.
pub fn version(lease: &Lease) -> Option<&str> {
    lease.metadata.resource_version.as_deref()
}

/// Returns the time that the holder keeps the Lease without renewing it, but `least` at least.
pub fn duration(lease: &Lease, least: Duration) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let said = Duration::from_secs(seconds.and_then(|seconds| seconds.try_into().ok()).unwrap_or_default());
    said.clamp(least, MAX_DURATION.max(least))
}

/// Returns a Lease to create, held by `identity`.
pub fn created(namespace: &str, identity: &str, duration: Duration, now: Timestamp) -> Lease {
    let metadata =
        ObjectMeta { name: Some(LEASE.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
    let spec = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(seconds(duration)),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(0),
        ..LeaseSpec::default()
    };
    Lease { metadata, spec: Some(spec) }
}

/// Returns the Lease with `identity` as its new holder.
pub fn taken(base: &Lease, identity: &str, duration: Duration, now: Timestamp) -> Lease {
    let is_another = holder(base) != Some(identity);
    write(base, |spec| {
        spec.holder_identity = Some(identity.to_owned());
        spec.lease_duration_seconds = Some(seconds(duration));
        spec.acquire_time = Some(MicroTime(now));
        spec.renew_time = Some(MicroTime(now));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(is_another.into()));
    })
}

/// Returns the Lease, renewed by its holder.
pub fn renewed(base: &Lease, duration: Duration, now: Timestamp) -> Lease {
    write(base, |spec| {
        spec.lease_duration_seconds = Some(seconds(duration));
        spec.renew_time = Some(MicroTime(now));
    })
}

/// Returns the Lease without a holder. Its duration is a second, as client-go writes it: the API server rejects none.
pub fn released(base: &Lease, now: Timestamp) -> Lease {
    write(base, |spec| {
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(now));
    })
}

fn write(base: &Lease, change: impl FnOnce(&mut LeaseSpec)) -> Lease {
    let mut lease = base.clone();
    // The API server keeps those that it has.
    lease.metadata.managed_fields = None;
    change(lease.spec.get_or_insert_default());
    lease
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn spec(lease: &Lease) -> LeaseSpec {
        lease.spec.clone().unwrap()
    }

    #[test]
    fn each_change_of_the_holder_is_a_transition() {
        let now = Timestamp::UNIX_EPOCH;
        let created = created("n", "a", TEN, now);
        assert_eq!((holder(&created), spec(&created).lease_transitions), (Some("a"), Some(0)));
        let again = taken(&created, "a", TEN, now);
        assert_eq!(spec(&again).lease_transitions, Some(0), "the same pod, after a restart of its container");
        let released = released(&again, now);
        assert_eq!((holder(&released), spec(&released).lease_duration_seconds), (None, Some(1)));
        let taken = taken(&released, "b", TEN, now);
        assert_eq!((holder(&taken), spec(&taken).lease_transitions), (Some("b"), Some(1)));
        assert_eq!(spec(&taken).lease_duration_seconds, Some(10));
    }

    #[test]
    fn a_write_keeps_what_is_not_its_own() {
        let mut base = created("n", "a", TEN, Timestamp::UNIX_EPOCH);
        base.metadata.labels = Some([("l".to_owned(), "v".to_owned())].into());
        base.metadata.resource_version = Some("7".to_owned());
        base.metadata.uid = Some("u".to_owned());
        let now = Timestamp::UNIX_EPOCH + TEN;
        for written in [taken(&base, "b", TEN, now), renewed(&base, TEN, now), released(&base, now)] {
            assert_eq!(written.metadata, base.metadata);
            assert_eq!(spec(&written).renew_time, Some(MicroTime(now)));
        }
        assert_eq!(spec(&renewed(&base, TEN, now)).acquire_time, Some(MicroTime(Timestamp::UNIX_EPOCH)));
    }

    #[test]
    fn a_lease_without_a_sensible_duration_is_kept_for_a_bounded_time() {
        let mut lease = created("n", "a", TEN, Timestamp::UNIX_EPOCH);
        let mut kept = |seconds: Option<i32>| {
            lease.spec.as_mut().unwrap().lease_duration_seconds = seconds;
            duration(&lease, TEN).as_secs()
        };
        assert_eq!([None, Some(-1), Some(1), Some(15), Some(i32::MAX)].map(&mut kept), [10, 10, 10, 15, 60]);
        assert_eq!(duration(&Lease::default(), TEN), TEN);
        assert_eq!(holder(&Lease::default()), None);
    }
}
