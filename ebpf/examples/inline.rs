//! Prints tcp-events as it stands in a BpfProgram's `spec.bytecode.inline`: base64, one line.

use base64::{Engine as _, prelude::BASE64_STANDARD};

fn main() {
    println!("{}", BASE64_STANDARD.encode(sockeye_ebpf::programs::TCP_EVENTS));
}
