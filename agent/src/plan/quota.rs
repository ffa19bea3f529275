//! `MapQuota`: the bounds that the node's administrator sets on the memory of maps. Pure.

use std::cmp::Reverse;

use sockeye_crds::Reason;

use crate::model::{desired::Desired, kernel::Machine, refusal::Refusal};

/// The bounds on the bytes of maps. The kernel charges them to the agent's cgroup, and pinned maps outlive the agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct MapQuota {
    /// The bytes that the maps of one BpfProgram may hold; `None` means no bound.
    pub map_bytes_per_program: Option<u64>,
    /// The bytes that the maps of all BpfPrograms on the node may hold; `None` means no bound.
    pub map_bytes_per_node: Option<u64>,
}

impl MapQuota {
    /// Refuses a revision whose maps exceed a bound. The maps of other BpfPrograms hold `others` bytes.
    pub fn admit(&self, desired: &Desired, others: impl FnOnce() -> u64, machine: &Machine) -> Result<(), Refusal> {
        let own = desired.maps.iter().filter(|(_, map)| map.from.is_none());
        let maps: Vec<(&str, u64)> = own.map(|(name, map)| (name.as_str(), map.shape.bytes(machine))).collect();
        let sum = maps.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
        if let Some(limit) = self.map_bytes_per_program.filter(|limit| sum > *limit) {
            let what = format!("the program's maps would hold {sum} bytes");
            return Err(exceeded(&what, limit, "policy.mapBytesPerProgram", maps));
        }
        let Some(limit) = self.map_bytes_per_node else { return Ok(()) };
        let total = sum.saturating_add(others());
        if total > limit {
            let what = format!("the node's maps would hold {total} bytes, {sum} of them this program's");
            return Err(exceeded(&what, limit, "policy.mapBytesPerNode", maps));
        }
        Ok(())
    }
}

fn exceeded(what: &str, limit: u64, chart_value: &str, mut maps: Vec<(&str, u64)>) -> Refusal {
    maps.sort_unstable_by_key(|(name, bytes)| (Reverse(*bytes), *name));
    let largest: Vec<String> = maps.iter().take(3).map(|(name, bytes)| format!("{name} {bytes}")).collect();
    let message = format!(
        "{what}, more than the {limit} that the agent's policy allows (largest: {}): lower spec.maps[].maxEntries, or \
         raise {chart_value} of the chart",
        largest.join(", ")
    );
    Refusal { reason: Reason::MapBytesExceeded, message }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sockeye_crds::{MapDefinition, revision::ProgramRef};
    use sockeye_crds_testing::provoked;

    use super::*;
    use crate::model::{desired::DesiredMap, map_shape::MapShape};

    const MACHINE: Machine = Machine { page: 4096, cpus: 2 };

    fn desired(entries: u32) -> Desired {
        let shape = MapShape { map_type: 2, key_size: 4, value_size: 8, max_entries: entries, flags: 0 };
        let map = DesiredMap {
            pin_name: "m".into(),
            pin: true,
            retain: false,
            definition: MapDefinition::Btf,
            of_load: false,
            sync: false,
            shape,
            recreate: false,
            from: None,
            attach_only: false,
            used_by: Vec::new(),
        };
        Desired {
            program: ProgramRef::default(),
            revision: String::new(),
            load_key: String::new(),
            digest: String::new(),
            origin: Default::default(),
            functions: BTreeMap::new(),
            maps: [("my_map".to_owned(), map)].into(),
            kept_pods: BTreeMap::new(),
            attaches_to_maps: false,
            globals: BTreeMap::new(),
            settings: Vec::new(),
            priority: 500,
            unordered: false,
            suspended: false,
            force_detach: false,
        }
    }

    #[test]
    fn a_refusal_names_the_sum_the_limit_and_the_largest_map() {
        let quota = MapQuota { map_bytes_per_program: Some(1 << 20), map_bytes_per_node: Some(3 << 19) };
        assert!(quota.admit(&desired(1000), || 0, &MACHINE).is_ok());
        let refusal = quota.admit(&desired(1 << 18), || 0, &MACHINE).unwrap_err();
        assert_eq!(refusal.reason, Reason::MapBytesExceeded);
        for word in ["2097152", "1048576", "my_map", "mapBytesPerProgram"] {
            assert!(refusal.message.contains(word), "{refusal}");
        }
        provoked(refusal.reason, &refusal.message);
        let refusal = quota.admit(&desired(1 << 16), || 1 << 20, &MACHINE).map_err(|r| r.message);
        assert_eq!(refusal, Ok(()), "half a mebibyte and a mebibyte are exactly the node's bound");
        let refusal = quota.admit(&desired(1 << 16), || (1 << 20) + 1, &MACHINE).unwrap_err();
        assert!(refusal.message.contains("1572865 bytes, 524288 of them"), "{refusal}");
        provoked(refusal.reason, &refusal.message);
    }
}
