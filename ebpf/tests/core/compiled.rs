//! Programs that clang compiles against one kernel's types, relocated against many kernels' types. The accesses are
//! random ones of all structs that the kernel has.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use object::{Object as _, ObjectSection as _, read::elf::ElfFile64};
use sockeye_ebpf::btf::{Btf, Ext, Kind, Type, ext::CoreRelo};
use sockeye_ebpf_testing::random::Rng;

use crate::oracle::Code;

/// The kernels whose types are here: the running one's, and Debian's that tests/oracle/kernel.sh has fetched.
pub fn kernels() -> Vec<(String, PathBuf)> {
    let mut found = vec![("here".to_owned(), PathBuf::from("/sys/kernel/btf/vmlinux"))];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/kernel.sh");
    for name in ["5.10", "6.1", "6.12", "7.2"] {
        let out = Command::new(&script).arg(name).output().unwrap();
        let folder = PathBuf::from(String::from_utf8(out.stdout).unwrap().trim());
        if out.status.success() {
            found.push((name.to_owned(), folder.join("btf")));
        } else {
            println!("NOT RELOCATED against the types of {name}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
    found.retain(|(name, path)| {
        path.exists() || {
            println!("NOT RELOCATED against the types of {name}");
            false
        }
    });
    found
}

/// The objects of all compilers that have relocations (tests/objects/built).
pub fn built() -> Vec<Object> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/objects/built");
    let compilers = fs::read_dir(folder).unwrap().map(|folder| folder.unwrap().path());
    let objects = compilers.flat_map(|compiler| fs::read_dir(compiler).unwrap()).map(|object| object.unwrap().path());
    objects.filter_map(|path| Object::read(&path.to_string_lossy(), &fs::read(&path).unwrap())).collect()
}

/// An object with relocations: its types, and the instructions with their records in the file's order.
pub struct Object {
    pub name: String,
    pub btf: Vec<u8>,
    pub relos: Vec<(CoreRelo, Code)>,
}

impl Object {
    /// Reads the relocations of an object. None if it has none.
    pub fn read(name: &str, bytes: &[u8]) -> Option<Self> {
        let elf = ElfFile64::<object::LittleEndian>::parse(bytes).ok()?;
        let data = |name: &str| elf.section_by_name(name).and_then(|section| section.data().ok());
        let types = data(".BTF")?;
        let (btf, ext) = (Btf::parse(types).ok()?, Ext::parse(data(".BTF.ext")?).ok()?);
        let mut relos = Vec::new();
        for section in ext.core_relos.sections() {
            let code = data(std::str::from_utf8(btf.strings().name(section.name_off)).ok()?)?;
            for relo in section.core_relos() {
                let at = relo.insn_off as usize;
                let mut two = [0; 16];
                let there = code.get(at..code.len().min(at + 16)).unwrap();
                two[..there.len()].copy_from_slice(there);
                relos.push((relo, two));
            }
        }
        (!relos.is_empty()).then(|| Self { name: name.to_owned(), btf: types.to_vec(), relos })
    }

    /// Compiles a program with random accesses of a kernel's types.
    pub fn compile(kernel: &Path, btf: &Btf<'_>, number: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (header, source, object) = (dir.path().join("vmlinux.h"), dir.path().join("p.c"), dir.path().join("p.o"));
        let dump = Command::new("bpftool").args(["btf", "dump", "file"]).arg(kernel).args(["format", "c"]).output();
        fs::write(&header, dump.unwrap().stdout).unwrap();
        fs::write(&source, Source::new(btf, number).text()).unwrap();
        let clang = env::var("SOCKEYE_CLANG").unwrap_or_else(|_| "clang-16".to_owned());
        // The accesses write, too, and some members are const.
        let args = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Dconst=", "-Wno-everything", "-ferror-limit=3", "-c"];
        let done = Command::new(clang).args(args).arg(&source).arg("-o").arg(&object).status();
        if !done.unwrap().success() {
            panic!("{}", fs::read_to_string(&source).unwrap());
        }
        Self::read(&format!("random accesses {number}"), &fs::read(&object).unwrap()).unwrap()
    }
}

/// Random accesses of a kernel's types, in C.
struct Source<'b, 'k> {
    btf: &'b Btf<'k>,
    rng: Rng,
    /// The structs and unions, and the enums, whose names are one type's only.
    records: Vec<u32>,
    enums: Vec<u32>,
}

impl<'b, 'k> Source<'b, 'k> {
    fn new(btf: &'b Btf<'k>, number: u64) -> Self {
        let mut names: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
        for one in btf.types().filter(|one| one.name_off != 0 && !matches!(one.kind, Kind::Func | Kind::Var)) {
            names.entry(one.name()).or_default().push(one.id);
        }
        let single: BTreeSet<u32> = names.values().filter(|ids| ids.len() == 1).map(|ids| ids[0]).collect();
        let of = |is: fn(&Type<'_>) -> bool| {
            btf.types().filter(|one| single.contains(&one.id) && one.vlen() > 0 && is(one)).map(|one| one.id).collect()
        };
        let (records, enums) = (of(|one| one.kind.is_composite()), of(|one| one.kind.is_any_enum()));
        Self { btf, rng: Rng(number), records, enums }
    }

    fn text(&mut self) -> String {
        // vmlinux.h says that all accesses of its structs are relocated.
        let head = "#include \"vmlinux.h\"\n__attribute__((section(\"raw_tp\"))) long p(void *p)\n{\n\tlong sum = 0;\n";
        let mut text = head.to_owned();
        for _ in 0..300 {
            if let Some(statement) = self.statement() {
                text.push_str(&format!("\t{statement};\n"));
            }
        }
        text + "\treturn sum;\n}\n"
    }

    fn pick(&mut self, from: fn(&Self) -> &Vec<u32>) -> Type<'k> {
        let count = from(self).len();
        let index = self.rng.below(count);
        self.btf.get(from(self)[index]).unwrap()
    }

    fn statement(&mut self) -> Option<String> {
        let record = self.pick(|source| &source.records);
        let tag = if record.kind == Kind::Struct { "struct" } else { "union" };
        let name = format!("{tag} {}", record.text());
        match self.rng.below(12) {
            0 => Some(format!("sum += __builtin_preserve_type_info(*({name} *)0, {})", self.rng.below(3))),
            1 => Some(format!("sum += __builtin_btf_type_id(*({name} *)0, {})", self.rng.below(2))),
            2 => {
                let of = self.pick(|source| &source.enums);
                let index = self.rng.below(of.vlen());
                let (kind, one) = (self.rng.below(2), of.enumerator(index)?.text());
                let name = of.text();
                Some(format!("sum += __builtin_preserve_enum_value(*(enum {name} *){one}, {kind})"))
            }
            _ => {
                let (path, last, is_bit_field) = self.path(record)?;
                let access = format!("(({name} *)p){path}");
                let kind = self.rng.below(6);
                // Clang asks for signs and shifts of numbers only.
                let is_number = matches!(last.kind, Kind::Int | Kind::Enum);
                let is_scalar = matches!(last.kind, Kind::Int | Kind::Enum | Kind::Ptr) && !is_bit_field;
                match self.rng.below(4) {
                    0 if is_scalar => Some(format!("sum += (long){access}")),
                    1 if last.kind == Kind::Int && is_scalar => Some(format!("{access} = sum")),
                    _ if kind > 2 && (!is_number || path.ends_with(']')) => None,
                    _ => Some(format!("sum += __builtin_preserve_field_info({access}, {kind})")),
                }
            }
        }
    }

    /// Returns an access below a struct, the type that it ends at, and whether that is a bit field.
    fn path(&mut self, record: Type<'k>) -> Option<(String, Type<'k>, bool)> {
        let (mut path, mut at) = ("->".to_owned(), record);
        loop {
            let index = self.rng.below(at.members().len());
            let member = at.member(index)?;
            let inner = self.btf.skip_modifiers(member.type_id)?;
            let is_named = member.name_off != 0;
            if is_named {
                path.push_str(&member.text());
            }
            if member.width > 0 {
                return is_named.then_some((path, inner, true));
            }
            at = inner;
            while let Some(array) = at.array().filter(|array| array.len > 0 && is_named) {
                if self.rng.below(3) == 0 {
                    return Some((path, at, false));
                }
                path.push_str(&format!("[{}]", self.rng.below(array.len as usize)));
                at = self.btf.skip_modifiers(array.element)?;
            }
            if !at.kind.is_composite() || at.members().len() == 0 || is_named && self.rng.below(3) == 0 {
                return is_named.then_some((path, at, false));
            }
            if is_named {
                path.push('.');
            }
        }
    }
}
