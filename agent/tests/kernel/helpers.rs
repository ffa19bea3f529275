//! The helpers and instructions that older kernels refuse: a table compared with this kernel, and what the agent says.

use serde_json::json;
use sockeye_agent::{kernel::verifier, model::kernel::ProgramKind, node::helpers::ROWS};
use sockeye_ebpf::{kinds::section::SECTIONS, programs::fixtures::ATOMIC};

use crate::node::Node;

/// The kernels that the table was made of.
const TESTED: [(u16, u16); 5] = [(5, 10), (6, 1), (6, 12), (6, 18), (7, 2)];
/// The first release that has programs for Unix sockets, which the table leaves out.
const UNIX: (u16, u16) = (6, 7);

#[test]
fn this_kernel_lets_programs_call_the_helpers_that_the_table_says() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u16>().unwrap());
    let this = (numbers.next().unwrap(), numbers.next().unwrap());
    if !TESTED.contains(&this) {
        println!("the table knows nothing of Linux {release}");
        return;
    }
    let mut wrong = Vec::new();
    for row in ROWS {
        for section in SECTIONS.iter().filter(|section| section.least_kernel < UNIX && section.least_kernel <= this) {
            let kind = ProgramKind { prog_type: section.prog_type, attach_type: section.attach_type };
            for (helper, name) in row.helpers {
                let calls = verifier::has_helper(kind, i32::try_from(*helper).unwrap());
                if row.kinds.iter().any(|kinds| kinds.contain(kind)) && calls != Some(this >= row.seen) {
                    wrong.push(format!("{} calls {name}: {calls:?}", section.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "on Linux {release}: {wrong:#?}");
}

#[test]
fn an_instruction_that_this_kernel_lacks_is_refused_by_the_first_linux_that_has_it() {
    let mut node = Node::new("instructions");
    node.start();
    for (function, feature, release) in [("fetch", "AtomicFetch", "5.12"), ("swap", "InstructionsV4", "6.6")] {
        let programs = json!([{"name": function, "attach": [{"type": "Node"}]}]);
        node.apply("atomic", ATOMIC, programs, json!([]));
        node.until("an outcome", |node| {
            node.is_status_current("atomic") && node.condition("atomic", "Ready")["reason"].is_string()
        });
        if node.has_feature(feature) {
            node.ready("atomic");
        } else {
            let refused = node.condition_is("atomic", "Ready", "False");
            assert_eq!(refused["reason"], "KernelUnsupported", "{refused}");
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains(&format!("Linux has from {release} on")), "{message}");
        }
    }
    node.remove("atomic");
    node.nothing_left();
}
