//! `inspect`: what an ELF object holds and needs, and where it would load. Exits 3 where it would not.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use sockeye_crds::{BpfNode, names};
use sockeye_ebpf::{
    Object,
    kinds::section,
    link::{self, MapRequest, ProgramKind, Request},
    values::settings::Settings,
};

use super::{context::Context, print};
use crate::{
    source::{Kind, Read, elf, local_kernel::LocalKernel},
    view::inspect::{self, Inspection, Place},
};

/// The arguments of `inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// The ELF object, or - for standard input
    file: PathBuf,
    /// A program to judge; can be given several times. All that sockeye runs if it is left out
    #[arg(long)]
    program: Vec<String>,
    /// Ask too whether the nodes of the cluster could load it
    #[arg(long)]
    nodes: bool,
    /// Do not ask whether this machine's kernel could load it
    #[arg(long)]
    not_here: bool,
}

/// The exit code where it would not load.
const WOULD_NOT_LOAD: u8 = 3;

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let bytes = elf::read(&args.file, names::MAX_OBJECT_BYTES)?;
    let object = Object::read(&bytes).context("it is no ELF object that sockeye reads")?;
    let sections: BTreeMap<&str, &str> = object.programs().collect();
    let missing = args.program.iter().find(|name| !sections.contains_key(name.as_str()));
    anyhow::ensure!(missing.is_none(), "the object has no program {}", missing.map_or("", String::as_str));
    let is_asked = |name: &str| args.program.is_empty() || args.program.iter().any(|program| program == name);
    let asked: Vec<&str> = sections.keys().copied().filter(|name| is_asked(name)).collect();
    let mut selection = object.select(asked.iter().copied(), object.maps()).context("the object is refused")?;
    let mut info = object.info(&mut selection);
    info.programs.retain(|program| is_asked(&program.name));
    let needs = inspect::needs(&info, object.has_core_relocations());
    let problems = inspect::problems(&info);
    let mut places = Vec::new();
    if !args.not_here {
        places.push(here(&object, &sections, &asked)?);
    }
    let mut notes = Vec::new();
    if args.nodes {
        // The exit code is the answer: nodes that may not be read are none that would load it.
        let Read { objects: nodes, notes: unread } = context.source().await?.read_all::<BpfNode>(Kind::Node).await?;
        notes.extend(unread);
        let on_node = |node: &BpfNode| {
            let facts = node.status.clone().unwrap_or_default().node;
            inspect::on_node(node.metadata.name.as_deref().unwrap_or_default(), &facts, &needs)
        };
        places.extend(nodes.iter().map(on_node));
    }
    let inspection =
        Inspection { digest: names::digest(&bytes), bytes: bytes.len(), object: info, needs, problems, places };
    if context.format.is_table() {
        print::text(&inspect::render(&inspection))?;
    } else {
        print::structured(context, &inspection)?;
    }
    print::notes(&notes);
    Ok(if inspection.would_load() { ExitCode::SUCCESS } else { ExitCode::from(WOULD_NOT_LOAD) })
}

/// Links the object against this machine's kernel, as its agent would before it loads it.
fn here(object: &Object<'_>, sections: &BTreeMap<&str, &str>, asked: &[&str]) -> anyhow::Result<Place> {
    let kernel = LocalKernel::read();
    let settings = Settings::read(object, &BTreeMap::new(), &[]).map_err(|mistake| anyhow::anyhow!("{mistake}"))?;
    let kind = |name: &str| {
        let row = section::find(sections.get(name)?)?;
        Some(ProgramKind { prog_type: row.prog_type, attach_type: row.attach_type })
    };
    let programs: BTreeMap<&str, ProgramKind> = asked.iter().filter_map(|name| Some((*name, kind(name)?))).collect();
    let maps = object.maps().map(|name| (name, MapRequest::default())).collect();
    let (mut lacks, mut notes) = (Vec::new(), Vec::new());
    match link::link(object, &Request { programs, maps }, &settings, &kernel) {
        Ok(plan) => {
            // An instruction that no verifier accepts may lie where none looks, behind bpf_core_field_exists. So it is
            // said, and counts as no refusal.
            let is_poisoned = |program: &&link::PlannedProgram<'_>| {
                (0..program.code.len() / 8).any(|at| program.poisoned.get(at).is_some())
            };
            let poisoned = plan.programs.iter().filter(is_poisoned);
            notes.extend(poisoned.map(|program| {
                format!(
                    "program {} refers to something that this kernel lacks; it loads if it asks first",
                    program.name
                )
            }));
        }
        Err(error) => lacks.push(error.to_string()),
    }
    Ok(Place { name: "here".to_owned(), kernel: kernel.release.clone(), would_load: lacks.is_empty(), lacks, notes })
}
