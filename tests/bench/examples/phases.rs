#![allow(missing_docs, clippy::unwrap_used)]
use sockeye_agent::kernel::{bpf, bpffs, cgroup::Root, info, load::*};
use sockeye_agent::{kernel::facts::Machine, layout::Layout, observe, plan::plan, wanted::Wanted};
use sockeye_ebpf::programs::*;
use std::{hint::black_box, os::fd::AsFd as _, path::Path, time::Instant};
fn t<T>(what: &str, mut f: impl FnMut() -> T) {
    let mut v: Vec<u128> = (0..300)
        .map(|_| {
            let s = Instant::now();
            black_box(f());
            s.elapsed().as_nanos()
        })
        .collect();
    v.sort();
    println!(
        "{what:40} min {:8.1} p25 {:8.1} median {:8.1} us",
        v[0] as f64 / 1e3,
        v[75] as f64 / 1e3,
        v[150] as f64 / 1e3
    );
}
fn main() {
    let o = TCP_EVENTS_BTF;
    println!("{} bytes seed, {} btf", TCP_EVENTS.len(), o.len());
    t("to_vec", || o.to_vec());
    t("digest", || sockeye_crds::names::digest(o));
    t("parse", || aya_obj::Object::parse(o).unwrap());
    t("parse legacy", || aya_obj::Object::parse(TCP_EVENTS).unwrap());
    t("parse+btf", || {
        let mut x = aya_obj::Object::parse(o).unwrap();
        x.fixup_and_sanitize_btf(aya::features().btf().unwrap()).unwrap().map(|b| b.to_bytes())
    });
    let spec: sockeye_crds::BpfProgramSpec = serde_json::from_value(serde_json::json!({"bytecode":{"inline":"eA=="},"programs":[{"name":"my_prog","attach":[{"cgroup":{"scope":"Path","path":"/c01"}}]}]})).unwrap();
    let a = sockeye_ebpf::check::check(&spec, o).unwrap().into_revision_spec(
        sockeye_crds::revision::ProgramRef { name: "x".into(), uid: "u".into() },
        1,
        1,
    );
    let r = sockeye_crds::BpfRevision::new("x-1", a);
    let m = Machine::read().unwrap();
    t("wanted", || Wanted::new(&r, &m).unwrap());
    t("load_key", || r.spec.load_key());
    let w = Wanted::new(&r, &m).unwrap();
    t("plan", || {
        plan(
            Some(&w),
            &Default::default(),
            &[("/c01".to_owned(), sockeye_agent::kernel::cgroup::Cgroup { id: 1, path: "/c01".into() })].into(),
        )
        .unwrap()
    });
    let k = ProgramKind { prog_type: 13, attach_type: 3 };
    let req = || {
        let mut q = Request::default();
        q.programs.insert("my_prog", k);
        q.maps.insert("my_map", MapSource::Create { value_size: 8, max_entries: 10 });
        q
    };
    let btf = KernelBtf::default();
    t("load + drop", || load(o, req(), &btf).unwrap());
    let l = load(o, req(), &btf).unwrap();
    t("info program", || info::program(l.programs["my_prog"].as_fd()).unwrap());
    t("info map", || info::map(l.maps["my_map"].as_fd()).unwrap());
    let d = Path::new("/sys/fs/bpf/ph");
    bpffs::make_dir(&d.join("sockeye")).unwrap();
    t("note", || bpffs::write_note(&d.join("n"), "abc", &d.join("s")).unwrap());
    t("read note", || bpffs::read_note(&d.join("n")).unwrap());
    t("list", || bpffs::list(d).unwrap());
    t("list none", || bpffs::list(&d.join("nnn")).unwrap());
    t("mkdir+rmdir", || {
        std::fs::create_dir(d.join("q")).unwrap();
        std::fs::remove_dir(d.join("q")).unwrap()
    });
    t("pin+unlink", || {
        bpf::obj_pin(l.maps["my_map"].as_fd(), &d.join("p")).unwrap();
        bpffs::remove(&d.join("p")).unwrap()
    });
    bpf::obj_pin(l.maps["my_map"].as_fd(), &d.join("p")).unwrap();
    t("obj_get", || bpf::obj_get(&d.join("p")).unwrap());
    let root = Root::find(None).unwrap();
    t("cgroup", || root.cgroup("/").unwrap());
    let layout = Layout::new(d, d);
    t("observe none", || observe::home(&layout.home("x"), &root).unwrap());
}
