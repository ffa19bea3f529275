//! Refuses a revision that would trigger a regression of this node's kernel. Pure.

use std::collections::BTreeMap;

use sockeye_crds::{Reason, Regression, RevisionTemplate, regression::RegressionInfo};
use sockeye_ebpf::kinds::section::is_verdict;

use crate::model::{
    desired::{DesiredMap, DesiredProgram},
    kernel::{SK_MSG, SOCK_OPS},
    node_context::NodeContext,
    refusal::Refusal,
};

/// Refuses a revision that triggers a regression which the kernel has, or may have, and the spec does not accept.
pub(super) fn check(
    template: &RevisionTemplate,
    functions: &BTreeMap<String, DesiredProgram>,
    maps: &BTreeMap<String, DesiredMap>,
    node_context: &NodeContext,
) -> Result<(), Refusal> {
    for regression in Regression::ALL {
        let RegressionInfo { name, breaks, .. } = regression.info();
        let regressions = &node_context.regressions;
        let unknown = regressions.unknown.get(&regression);
        let may_have = unknown.is_some() || regressions.found.contains(&regression);
        let is_accepted = template.suspend || template.accepted_regressions.iter().any(|accepted| accepted == name);
        if !may_have || is_accepted {
            continue;
        }
        let trigger = match regression {
            Regression::SockmapFionread => triggers_fionread(template, functions, maps),
        };
        let Some(trigger) = trigger else { continue };
        // The next probe may answer.
        let (reason, finding) = match unknown {
            Some(why) => {
                let finding = format!(
                    "this node's kernel may have the regression {name}, which could not be probed ({why}) and is \
                     probed again: {breaks}"
                );
                (Reason::InputsUnavailable, finding)
            }
            None => {
                let finding = format!(
                    "this node's kernel has the regression {name}: {breaks}; run another kernel (docs/kernels.md)"
                );
                (Reason::KernelUnsupported, finding)
            }
        };
        let message =
            format!("{trigger}: {finding}, or name {name} in spec.acceptedRegressions to run it all the same");
        return Err(Refusal { reason, message });
    }
    Ok(())
}

/// Names what makes sockets stand in a map without a verdict on what they receive. There alone the regression is
/// triggered: FIONREAD counts the bytes that a verdict program has passed, and no others (`tcp_bpf_ioctl`).
///
/// That is an `sk_msg` program on such a map, or a `sockops` program that adds sockets to one, be it by a tail call.
fn triggers_fionread(
    template: &RevisionTemplate,
    functions: &BTreeMap<String, DesiredProgram>,
    maps: &BTreeMap<String, DesiredMap>,
) -> Option<String> {
    let has_verdict = |pin: &str| {
        functions.values().any(|function| is_verdict(function.kind.attach_type) && function.maps.contains(pin))
    };
    let bare = |pin: &&String| !has_verdict(pin);
    let is_sock_ops = |name: &String| functions.get(name).is_some_and(|function| function.kind.prog_type == SOCK_OPS);
    // What is attached may call any other of its type by a program array.
    let may_join = template.programs.iter().any(|program| !program.attach.is_empty() && is_sock_ops(&program.name));
    functions.iter().find_map(|(name, function)| {
        if function.kind.prog_type == SK_MSG {
            let pin = function.maps.iter().find(bare)?;
            return Some(format!("program {name}, attached to map {pin}, which has no sk_skb verdict"));
        }
        if !(may_join && is_sock_ops(name)) {
            return None;
        }
        let fills = |map: &&DesiredMap| map.holds_sockets() && map.used_by.contains(name) && bare(&&map.pin_name);
        let map = maps.values().find(fills)?;
        Some(format!("program {name}, which adds sockets to map {}, which has no sk_skb verdict", map.pin_name))
    })
}
