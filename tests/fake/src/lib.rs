//! Fakes of a node's kernel and bpffs, as values.
//!
//! [`Fake`] holds the state of one BpfProgram, for the property tests of plans. [`FakeNode`] is a [`Node`] on which the
//! agent's own code runs, thousands of times on one machine. [`settle`] steps a controller until nothing is left to do.
//!
//! A fake executes steps as the interpreter does. A step that can't be executed is a defect of the plan, and panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fake;
mod node;

use std::{path::Path, time::Instant};

use k8s_openapi::jiff::Timestamp;
use sockeye_agent::{
    control::{
        Controller,
        controller::Settings,
        event::{Effect, Event},
    },
    node::{Node, layout::Layout},
    plan::quota::MapQuota,
};
use sockeye_crds::node::NodeFacts;

pub use self::{
    fake::{Fake, Ids},
    node::FakeNode,
};

/// Returns the settings of a fake node's controller.
pub fn settings() -> Settings {
    let bpffs = Path::new("/sys/fs/bpf");
    Settings {
        layout: Layout::new(bpffs, bpffs),
        quota: MapQuota::default(),
        facts: NodeFacts::default(),
        kernel_config: None,
        release_namespace: None,
        time_of_day: Timestamp::now,
    }
}

/// Steps a controller until there is nothing left to do, and returns all effects.
pub fn settle<N: Node>(controller: &mut Controller<N>, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
    let mut result = controller.step(Instant::now(), events);
    let mut effects = result.effects;
    while result.wake <= Instant::now() {
        result = controller.step(Instant::now(), []);
        effects.extend(result.effects);
    }
    effects
}
