//! `Policy`: what the one who runs the agent lets BpfPrograms have of the node. Pure.

use sockeye_crds::Reason;

use crate::{
    kernel::facts::Machine,
    wanted::{Refusal, Wanted},
};

/// Bounds on the memory of maps, which the kernel charges to the agent's cgroup and which outlives the agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// The maps of one BpfProgram may hold so many bytes.
    pub map_bytes_per_program: Option<u64>,
    /// The maps of all BpfPrograms on the node may.
    pub map_bytes_per_node: Option<u64>,
}

impl Policy {
    /// Whether the maps of a revision may be created beside those of other BpfPrograms, which hold `others` bytes.
    pub fn admit(&self, wanted: &Wanted, others: impl FnOnce() -> u64, machine: &Machine) -> Result<(), Refusal> {
        let own = || wanted.maps.iter().filter(|(_, map)| map.from.is_none());
        let maps = || own().map(|(name, map)| (name.as_str(), map.shape.bytes(machine)));
        let sum = maps().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(bytes));
        let refuse = |what: String, limit: u64, value: &str| {
            let mut largest: Vec<(&str, u64)> = maps().collect();
            largest.sort_unstable_by_key(|(name, bytes)| (std::cmp::Reverse(*bytes), *name));
            let largest: Vec<String> = largest.iter().take(3).map(|(name, bytes)| format!("{name} {bytes}")).collect();
            let message = format!(
                "{what}, more than the {limit} that the agent's policy allows (largest: {}): lower \
                 spec.maps[].maxEntries, or have {value} of the chart raised",
                largest.join(", ")
            );
            Err(Refusal { reason: Reason::MapBytesExceeded, message })
        };
        if let Some(limit) = self.map_bytes_per_program.filter(|limit| sum > *limit) {
            return refuse(format!("the program's maps would hold {sum} bytes"), limit, "policy.mapBytesPerProgram");
        }
        let Some(limit) = self.map_bytes_per_node else { return Ok(()) };
        let total = sum.saturating_add(others());
        if total > limit {
            let what = format!("the node's maps would hold {total} bytes, {sum} of them this program's");
            return refuse(what, limit, "policy.mapBytesPerNode");
        }
        Ok(())
    }
}

/// Reads a number of bytes as Kubernetes writes quantities: "1048576", "1024Ki", "1Mi", "1Gi".
pub fn bytes(quantity: &str) -> Result<u64, String> {
    let (digits, unit) = quantity.split_at(quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len()));
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => {
            return Err(format!(
                "{quantity:?} is no number of bytes: a number, and Ki, Mi, Gi, Ti or nothing after it"
            ));
        }
    };
    let number: u64 = digits.parse().map_err(|error| format!("{quantity:?}: {error}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{quantity:?} is too large"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sockeye_crds::{MapDefinition, revision::ProgramRef};

    use super::*;
    use crate::{shape::Shape, wanted::WantedMap};

    const MACHINE: Machine = Machine { page: 4096, cpus: 2 };

    fn wanted(entries: u32) -> Wanted {
        let shape = Shape { map_type: 2, key_size: 4, value_size: 8, max_entries: entries, flags: 0 };
        let map = WantedMap {
            pin_name: "m".into(),
            pin: true,
            retain: false,
            definition: MapDefinition::Btf,
            of_load: false,
            shape,
            recreate: false,
            from: None,
            used_by: Vec::new(),
        };
        Wanted {
            program: ProgramRef::default(),
            revision: String::new(),
            load_key: String::new(),
            digest: String::new(),
            functions: BTreeMap::new(),
            maps: [("my_map".to_owned(), map)].into(),
            attaches_to_maps: false,
            globals: BTreeMap::new(),
            settings: Vec::new(),
            priority: 500,
            unordered: false,
            suspended: false,
        }
    }

    #[test]
    fn the_sum_and_the_largest_are_named() {
        let policy = Policy { map_bytes_per_program: Some(1 << 20), map_bytes_per_node: Some(3 << 19) };
        assert!(policy.admit(&wanted(1000), || 0, &MACHINE).is_ok());
        let refusal = policy.admit(&wanted(1 << 18), || 0, &MACHINE).unwrap_err();
        assert_eq!(refusal.reason, Reason::MapBytesExceeded);
        for word in ["2097152", "1048576", "my_map", "mapBytesPerProgram"] {
            assert!(refusal.message.contains(word), "{refusal}");
        }
        let refusal = policy.admit(&wanted(1 << 16), || 1 << 20, &MACHINE).map_err(|r| r.message);
        assert_eq!(refusal, Ok(()), "half a mebibyte beside one is what the node may hold");
        let refusal = policy.admit(&wanted(1 << 16), || (1 << 20) + 1, &MACHINE).unwrap_err();
        assert!(refusal.message.contains("1572865 bytes, 524288 of them"), "{refusal}");
    }

    #[test]
    fn quantities() {
        assert_eq!(bytes("10"), Ok(10));
        assert_eq!(bytes("2Ki"), Ok(2048));
        assert_eq!(bytes("1Gi"), Ok(1 << 30));
        for bad in ["", "Mi", "1M", "-1", "1.5Gi", "99999999Ti"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
