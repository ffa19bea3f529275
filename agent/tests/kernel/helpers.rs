//! The table of helpers that older kernels refuse, compared with this kernel.

use sockeye_agent::{kernel::probe, model::kernel::ProgramKind, node::helpers::ROWS};
use sockeye_ebpf::kinds::section::SECTIONS;

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
                let calls = probe::calls(kind, i32::try_from(*helper).unwrap());
                if row.kinds.iter().any(|kinds| kinds.contain(kind)) && calls != Some(this >= row.seen) {
                    wrong.push(format!("{} calls {name}: {calls:?}", section.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "on Linux {release}: {wrong:#?}");
}
