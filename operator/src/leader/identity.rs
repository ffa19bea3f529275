//! [`identity`]: the name of this process in the Lease. IO: none.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Returns the pod's name and UID, or something random in the place of what is not known.
///
/// A pod runs one container of the operator at a time. So a container that is started again finds the Lease in its own
/// name, and need not wait until that ends.
pub fn identity(pod: Option<&str>, uid: Option<&str>) -> String {
    let known = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
    let pod = known(pod).unwrap_or_else(|| "sockeye-operator".to_owned());
    let uid = known(uid).unwrap_or_else(random);
    format!("{pod}_{uid}")
}

/// Returns 128 random bits. Each hasher has keys of its own.
fn random() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_keeps_its_identity_and_other_processes_have_one_each() {
        assert_eq!(identity(Some("p"), Some("u")), "p_u");
        assert_ne!(identity(Some("p"), None), identity(Some("p"), None));
        assert_ne!(identity(None, Some("")), identity(None, Some("")));
    }
}
