//! Images: pulled from a registry on loopback, checked, and judged by a policy; and registries that hang.
#![allow(clippy::unwrap_used, missing_docs)]

mod judged;
mod pulled;
mod registry;
mod shared;

use std::path::Path;

use sockeye_operator::images::{args::ImageArgs, key::ImageKey, pulled::Outcome, puller::Puller, pulls::Job};
use sockeye_registry::Client;

use self::registry::Registry;

/// The object of a program that ships with sockeye: one that every check accepts.
fn object() -> &'static [u8] {
    sockeye_ebpf::programs::builtin(sockeye_crds::Builtin::TcpRtt)
}

/// Another one.
fn other_object() -> &'static [u8] {
    sockeye_ebpf::programs::builtin(sockeye_crds::Builtin::TcpTune)
}

fn puller(registry: &Registry, secrets: &Path, with_signatures: bool) -> Puller {
    let args = ImageArgs { image_insecure_registry: vec![registry.host.clone()], ..ImageArgs::default() };
    Puller::new(Client::new(args.settings().unwrap()).unwrap(), secrets.to_owned(), with_signatures)
}

fn job(reference: &str) -> Job {
    Job {
        key: ImageKey { reference: reference.to_owned(), secret: None, pinned: None },
        known: [].into(),
        digest: None,
    }
}

async fn pull(registry: &Registry, job: Job) -> Outcome {
    puller(registry, Path::new("/nonexistent"), true).pull(job).await
}
