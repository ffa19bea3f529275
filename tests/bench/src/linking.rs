//! The user time that reading and linking an object takes, against that of libbpf and cilium/ebpf for loading it.
//! Theirs is without the kernel's part, of which they have the calls of one load.

use std::{collections::BTreeMap, fs, hint::black_box, time::Duration};

use anyhow::{Context as _, Result};
use sockeye_agent::kernel::running::RunningKernel;
use sockeye_ebpf::{
    Object,
    kinds::section,
    link::{MapRequest, ProgramKind, Request, link},
    programs::TCP_EVENTS_BTF,
    values::settings::Settings,
};

use crate::{
    place::Place,
    reference::{Loaders, References},
    table::{Bound, Figure, median},
};

/// How often the object is loaded at a time: a clock of ticks then counts enough of them.
const LOADS: usize = 1000;
/// How often each side takes its turn.
const ROUNDS: usize = 5;

/// Returns the figure.
pub fn figure(loaders: &Loaders, place: &Place) -> Result<Figure> {
    let mut references = References::start(loaders, place, TCP_EVENTS_BTF, "linking")?;
    let kernel = RunningKernel::default();
    let mut took = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let [libbpf, cilium] = references.load(LOADS)?;
        let own = own(&kernel)?;
        for (all, one) in took.iter_mut().zip([own, libbpf, cilium]) {
            all.push(one.as_secs_f64() * 1e6 / LOADS as f64);
        }
    }
    let [own, libbpf, cilium] = took.map(median);
    let figure = Figure::alone("load", "reading and linking, user time", own, "µs").against(libbpf).beside(cilium);
    Ok(figure.at_most(Bound::Ratio(1.0)))
}

/// Reads and links the object as the agent does, so often, and returns the processor time of all.
fn own(kernel: &RunningKernel) -> Result<Duration> {
    let before = processor_time()?;
    for _ in 0..LOADS {
        let object = Object::read(black_box(TCP_EVENTS_BTF))?;
        let settings = Settings::read(&object, &BTreeMap::new(), &[])?;
        let mut request = Request::default();
        for (name, section) in object.programs() {
            let row = section::find(section).context("an unknown section")?;
            let kind = ProgramKind { prog_type: row.prog_type, attach_type: row.attach_type };
            request.programs.insert(name, kind);
        }
        request.maps.extend(object.maps().map(|name| (name, MapRequest::default())));
        black_box(link(&object, &request, &settings, kernel)?);
    }
    Ok(processor_time()? - before)
}

/// Returns the processor time of this thread.
fn processor_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let ran = text.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(ran.parse()?))
}
