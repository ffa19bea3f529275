//! CO-RE relocations, compared with libbpf's own functions: random types against random changes of them, and the
//! instructions that compilers make against real kernels.
#![allow(clippy::unwrap_used, missing_docs)]

mod compiled;
mod generate;
mod hostile;
mod oracle;

use std::{collections::BTreeMap, fs, time::Duration};

use generate::T;
use oracle::{Code, Oracle};
use sockeye_ebpf::{
    btf::{Btf, KernelBtf, Kind, ext::CoreRelo, kernel::Bytes},
    link::core::{CoreError, Reason, Relocator},
    programs::fixtures,
};
use sockeye_ebpf_testing::{builder::BtfBuilder, random::Rng};

/// The number of random objects, which is larger in the long form of the tests.
fn cases() -> u64 {
    if is_long() { 200_000 } else { 4000 }
}

fn is_long() -> bool {
    std::env::var_os("SOCKEYE_CHAOS").is_some()
}

/// Operations: moves and additions of a constant, loads, stores, a load of a wide constant, and others.
const OPERATIONS: [u8; 24] = [
    0xb7, 0xb7, 0xb4, 0x07, 0xbf, 0x71, 0x69, 0x61, 0x79, 0x79, 0x61, 0x81, 0x72, 0x62, 0x7a, 0x73, 0x63, 0x7b, 0x18,
    0x18, 0x18, 0x05, 0x20, 0x85,
];

/// Adds one, seldom, so that an index or a number lies just outside.
fn seldom_more(most: usize, one_in: usize, rng: &mut Rng) -> usize {
    most + usize::from(rng.below(one_in) == 0)
}

fn code(rng: &mut Rng) -> Code {
    let mut code = [0; 16];
    code[0] = OPERATIONS[rng.below(OPERATIONS.len())];
    code[1] = rng.below(11) as u8;
    if code[0] == 0x18 && rng.below(20) == 0 {
        code[rng.below(16)] ^= 1 << rng.below(8);
    } else if code[0] != 0x18 {
        code[8..].copy_from_slice(&[0xb7, 3, 0, 0, 9, 0, 0, 0]);
        code[1] |= (rng.below(11) as u8) << 4;
    }
    code
}

/// Writes a value where the compiler has written the one that it expects.
fn set_value(code: &mut Code, value: u64) {
    let bytes = value.to_le_bytes();
    match code[0] & 7 {
        1..=3 => code[2..4].copy_from_slice(&bytes[..2]),
        0 => {
            code[4..8].copy_from_slice(&bytes[..4]);
            code[12..16].copy_from_slice(&bytes[4..]);
        }
        _ => code[4..8].copy_from_slice(&bytes[..4]),
    }
}

/// An access path that starts at a type, mostly a valid one.
fn path(btf: &Btf<'_>, root: u32, kind: u32, rng: &mut Rng) -> String {
    let start = if rng.below(8) == 0 { rng.below(4) } else { 0 };
    if (6..=9).contains(&kind) || kind == 12 {
        return if rng.below(40) == 0 { "0:0".to_owned() } else { "0".to_owned() };
    }
    let mut path = start.to_string();
    if matches!(kind, 10 | 11) {
        let values = btf.skip_modifiers(root).map_or(0, |of| of.enumerators().len());
        let count = seldom_more(values, 20, rng);
        return rng.below(count).to_string();
    }
    let mut id = root;
    while let Some(of) = btf.skip_modifiers(id).filter(|_| rng.below(8) > 0) {
        let (index, next) = if let Some(array) = of.array() {
            (rng.below(array.len as usize + 2), array.element)
        } else if of.members().len() > 0 {
            let index = {
                let count = seldom_more(of.members().len(), 40, rng);
                rng.below(count)
            };
            (index, of.member(index).map_or(0, |member| member.type_id))
        } else {
            break;
        };
        path.push_str(&format!(":{index}"));
        id = next;
    }
    path
}

/// A random object: its BTF, its relocations, and the kernel's BTF.
struct Case {
    local: Vec<u8>,
    kernel: Vec<u8>,
    relos: Vec<(CoreRelo, Code)>,
}

impl Case {
    fn new(number: u64) -> Self {
        let mut rng = Rng(number);
        let roots: Vec<T> = (0..1 + rng.below(5)).map(|_| T::root(&mut rng)).collect();
        let mut types = BtfBuilder::new();
        let ids: Vec<u32> = roots.iter().map(|root| root.add(&mut types)).collect();
        let mut kernel = BtfBuilder::new();
        for root in &roots {
            for _ in 0..rng.below(4) {
                let mut root = root.clone();
                root.rename(&mut rng);
                for _ in 0..rng.below(3) {
                    root.change(&mut rng);
                }
                root.add(&mut kernel);
            }
        }
        T::root(&mut rng).add(&mut kernel);
        let plain = types.clone().build();
        let btf = Btf::parse(&plain).unwrap();
        let mut paths = BTreeMap::new();
        let mut relos = Vec::new();
        for _ in 0..40 {
            let any = rng.below(btf.len() as usize + 1) as u32;
            let type_id = if rng.below(10) == 0 { any } else { ids[rng.below(ids.len())] };
            let kind = {
                let count = seldom_more(13, 50, &mut rng);
                rng.below(count) as u32
            };
            let path = path(&btf, type_id, kind, &mut rng);
            let access_str_off = *paths.entry(path.clone()).or_insert_with(|| types.string(&path));
            relos.push((CoreRelo { insn_off: 0, type_id, access_str_off, kind }, code(&mut rng)));
        }
        Self { local: types.build(), kernel: kernel.build(), relos }
    }
}

/// Relocates as the linker does. An error ends an object, so another begins after it.
fn relocate(
    local: &Btf<'_>,
    kernel: &KernelBtf,
    relos: &mut [(CoreRelo, Code)],
) -> Vec<(Result<bool, CoreError>, Code)> {
    let mut relocator = Relocator::new(local, kernel);
    let mut given = Vec::new();
    for (relo, code) in relos {
        let mut patched = *code;
        let mut done = Relocator::new(local, kernel).relocate(relo, &mut patched);
        if let Err(CoreError { reason: Reason::Value(_, expected), .. }) = done {
            set_value(code, expected);
        }
        patched = *code;
        done = relocator.relocate(relo, &mut patched);
        if done.is_err() {
            relocator = Relocator::new(local, kernel);
        }
        given.push((done.map(|cause| cause.is_some()), patched));
    }
    given
}

/// How often each outcome was seen.
#[derive(Debug, Default)]
struct Tally {
    patched: usize,
    poisoned: usize,
    refused: BTreeMap<String, usize>,
}

/// Compares the relocations of an object with libbpf's. The kernel's types are sent only if they are new.
fn compare(
    oracle: &mut Oracle,
    name: &str,
    case: (&[u8], &[(CoreRelo, Code)]),
    kernel: (&KernelBtf, Option<&[u8]>),
    tally: &mut Tally,
) {
    let (local, relos) = case;
    let btf = Btf::parse(local).unwrap();
    let (index, bytes) = kernel;
    let mut relos = relos.to_vec();
    let ours = relocate(&btf, index, &mut relos);
    let theirs = oracle.relocate(local, bytes, &relos);
    for (((relo, code), (done, patched)), given) in relos.iter().zip(&ours).zip(&theirs) {
        let relocator = Relocator::new(&btf, index);
        let subject = relocator.subject(relo);
        let about =
            || format!("{name}: {relo:?} {code:02x?}\n{subject}\nours {done:?} {patched:02x?}\nlibbpf's {given:?}");
        assert_eq!(done.is_ok(), given.error == 0, "{}", about());
        if given.error == 0 {
            assert_eq!(*patched, given.code, "{}", about());
        }
        if !given.spec.is_empty() {
            assert_eq!(subject.spec, given.spec, "{}", about());
        }
        match done {
            Ok(false) => tally.patched += 1,
            Ok(true) => tally.poisoned += 1,
            Err(error) => {
                let reason = format!("{:?}", error.reason);
                let reason = reason.split('(').next().unwrap().to_owned();
                *tally.refused.entry(reason).or_default() += 1;
            }
        }
    }
}

#[test]
fn random_relocations_are_answered_as_by_libbpf() {
    let Some(mut oracle) = Oracle::start() else { return };
    let mut tally = Tally::default();
    for number in 0..cases() {
        let Case { local, kernel, relos } = Case::new(number);
        let index = KernelBtf::new(Box::new(kernel.clone())).unwrap();
        compare(&mut oracle, &format!("case {number}"), (&local, &relos), (&index, Some(&kernel)), &mut tally);
    }
    println!("{tally:?}");
    let most = tally.refused.get("Ambiguous").copied().unwrap_or_default();
    assert!(tally.patched > 10_000 && tally.poisoned > 1000 && most > 1000, "{tally:?}");
}

#[test]
fn compiled_relocations_are_answered_as_by_libbpf_on_every_kernel() {
    let Some(mut oracle) = Oracle::start() else { return };
    let kernels = compiled::kernels();
    let shipped = [("core", fixtures::CORE)];
    let mut objects: Vec<compiled::Object> =
        shipped.iter().map(|(name, bytes)| compiled::Object::read(name, bytes).unwrap()).collect();
    objects.extend(compiled::built());
    assert!(objects.len() > 10, "objects of many compilers have relocations");
    // Half a second for each object. The oldest and the running kernel differ most.
    let (compiled, each) = if is_long() { (kernels.len(), 5) } else { (2, 1) };
    for (name, path) in kernels.iter().take(compiled) {
        let bytes = fs::read(path).unwrap();
        let btf = Btf::parse(&bytes).unwrap();
        for number in 0..each {
            let mut object = compiled::Object::compile(path, &btf, number);
            object.name.push_str(&format!(" of {name}"));
            objects.push(object);
        }
    }
    for (name, path) in &kernels {
        let mut tally = Tally::default();
        let bytes = fs::read(path).unwrap();
        let index = KernelBtf::new(Box::new(bytes.clone())).unwrap();
        let mut send = Some(bytes.as_slice());
        for object in &objects {
            let about = format!("{} on {name}", object.name);
            compare(&mut oracle, &about, (&object.btf, &object.relos), (&index, send.take()), &mut tally);
        }
        println!("{name}: {tally:?}");
        assert!(tally.patched > 300 && tally.poisoned > 0, "{tally:?}");
    }
}

/// The CPU time of this thread. Elapsed time would also measure the load of the machine.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[test]
fn the_index_of_a_kernel_is_quick_and_small() {
    for (name, path) in compiled::kernels() {
        let bytes = fs::read(path).unwrap();
        let measure = |_| {
            let bytes: Bytes = Box::new(bytes.clone());
            let before = cpu_time();
            let index = KernelBtf::new(bytes).unwrap();
            let built = cpu_time();
            assert!(!index.candidates(b"task_struct", Kind::Struct).is_empty());
            (built - before, index.memory())
        };
        let (time, memory) = (0..20).map(measure).min().unwrap();
        println!("{name}: {} KiB of BTF are indexed in {time:?}, {} KiB", bytes.len() >> 10, memory >> 10);
        assert!(time < Duration::from_millis(10) && memory < 400 << 10, "{name}: {time:?}, {memory}");
    }
}
