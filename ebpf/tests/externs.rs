//! What an object expects of the kernel: values of its configuration, functions, variables and symbols.
#![allow(clippy::unwrap_used, missing_docs)]

use sockeye_ebpf::{
    Object,
    link::{Invalid, MapRequest, Plan, ProgramKind, Request, link},
    values::settings::Settings,
};
use sockeye_ebpf_testing::{cases::compiled, kernel::TableKernel};

/// Compiles the program `p` of these declarations and this body.
fn program(declarations: &str, body: &str) -> Vec<u8> {
    compiled(&format!(
        "#include <linux/bpf.h>\n#include <stdbool.h>\n#include <bpf/bpf_helpers.h>\n\
         {declarations}\n__u64 out[16];\n\
         SEC(\"sockops\") int p(struct bpf_sock_ops *ops) {{ {body} return 1; }}\n\
         SEC(\"sockops\") int other(struct bpf_sock_ops *ops) {{ return 1; }}\n\
         char LICENSE[] SEC(\"license\") = \"GPL\";\n"
    ))
}

/// Links a program for a kernel with these facts, and looks at the plan.
fn linked<T>(bytes: &[u8], name: &str, table: &str, look: impl FnOnce(Plan<'_>) -> T) -> Result<T, String> {
    let object = Object::read(bytes).map_err(|error| error.to_string())?;
    let mut selection = object.select([name], []).map_err(|error| error.to_string())?;
    let info = object.info(&mut selection);
    let maps = info.maps.iter().map(|map| (map.name.as_str(), MapRequest::default())).collect();
    let request = Request { programs: [(name, ProgramKind::default())].into(), maps };
    let types = std::fs::read("/sys/kernel/btf/vmlinux").ok();
    let kernel = TableKernel::new(true, types).with(table).unwrap();
    let settings = Settings::default();
    link(&object, &request, &settings, &kernel).map(look).map_err(|error| {
        assert!(error.is_of_kernel(), "{error}");
        error.to_string()
    })
}

fn config(bytes: &[u8], table: &str) -> Result<(Vec<u8>, Vec<String>), String> {
    linked(bytes, "p", table, |plan| {
        let map = plan.maps.iter().find(|map| map.name == ".kconfig").unwrap();
        assert!(map.is_frozen && map.attributes.flags & 0x80 != 0);
        (map.data.as_ref().unwrap().to_vec(), plan.notes.clone())
    })
}

#[test]
fn values_of_the_configuration_have_the_types_of_their_variables() {
    let bytes = program(
        "extern bool CONFIG_A __kconfig; extern enum libbpf_tristate CONFIG_B __kconfig;\n\
         extern unsigned long CONFIG_C __kconfig; extern short CONFIG_D __kconfig;\n\
         extern char CONFIG_E[6] __kconfig; extern char CONFIG_F __kconfig; extern int LINUX_KERNEL_VERSION __kconfig;",
        "out[0] = CONFIG_A; out[1] = CONFIG_B; out[2] = CONFIG_C; out[3] = CONFIG_D; out[4] = CONFIG_E[ops->op & 3]; \
         out[5] = CONFIG_F; out[6] = LINUX_KERNEL_VERSION;",
    );
    let table = "release 6.2.3\nconfig CONFIG_A=y\nconfig CONFIG_B=m\nconfig CONFIG_C=0x100000000\nconfig CONFIG_D=-2\n\
                 config CONFIG_E=\"too long\"\nconfig CONFIG_F=n\n";
    let (data, notes) = config(&bytes, table).unwrap();
    // By alignment from the largest, then by size: 8 bytes, 4 and 4 by name, 2, then 1 by size and name.
    let expected = [
        &0x1_0000_0000u64.to_le_bytes()[..],
        &2u32.to_le_bytes(),
        &0x0006_0203u32.to_le_bytes(),
        &(-2i16).to_le_bytes(),
        &[1, b'n'],
        b"too l\0",
    ];
    assert_eq!((data, notes), (expected.concat(), vec![]));
    for (line, words) in [
        ("config CONFIG_A=m", "m, a module"),
        ("config CONFIG_A=5", "an integer can be"),
        ("config CONFIG_D=70000", "70000 does not fit into 2 bytes"),
        ("config CONFIG_D=12x", "no number"),
        ("config CONFIG_C=y", "a bool, a char or an enum"),
        ("config CONFIG_E=y", "a bool, a char or an enum"),
        ("config CONFIG_C=\"text\"", "an array of char"),
    ] {
        let name = line.strip_prefix("config ").unwrap().split('=').next().unwrap();
        let changed: String =
            table.lines().filter(|line| !line.contains(name)).fold(String::new(), |all, line| all + line + "\n");
        let refused = config(&bytes, &(changed + line)).unwrap_err();
        assert!(refused.contains(words) && refused.contains(name), "{line}: {refused}");
    }
}

#[test]
fn without_a_configuration_weak_values_are_0_with_a_note_and_others_are_refused() {
    let weak = program("extern int CONFIG_HZ __kconfig __weak;", "out[0] = CONFIG_HZ;");
    let (data, notes) = config(&weak, "noconfig").unwrap();
    assert_eq!(data, [0; 4]);
    assert!(notes.len() == 1 && notes[0].contains("CONFIG_HZ as 0"), "{notes:?}");
    let strong = program("extern int CONFIG_HZ __kconfig;", "out[0] = CONFIG_HZ;");
    let refused = config(&strong, "noconfig").unwrap_err();
    assert!(refused.contains("CONFIG_HZ") && refused.contains("agent.kernelConfig"), "{refused}");
    let absent = config(&strong, "config CONFIG_OTHER=1").unwrap_err();
    assert!(absent.contains("does not set it"), "{absent}");
    assert_eq!(config(&weak, "config CONFIG_OTHER=1").unwrap(), (vec![0; 4], vec![]));
    let version = program("extern int LINUX_KERNEL_VERSION __kconfig;", "out[0] = LINUX_KERNEL_VERSION;");
    assert_eq!(config(&version, "noconfig\nrelease 5.10.300").unwrap().0, 0x0005_0aff_u32.to_le_bytes());
    let odd = program("extern int LINUX_ODD __kconfig;", "out[0] = LINUX_ODD;");
    assert!(config(&odd, "").unwrap_err().contains("LINUX_HAS_BPF_COOKIE"));
    // Nobody asks for what the other program reads.
    linked(&strong, "other", "noconfig", |plan| assert_eq!(plan.programs.len(), 1)).unwrap();
}

#[test]
fn symbols_without_types_have_addresses_or_are_refused_by_name() {
    let bytes = program("extern const void here __ksym;", "out[0] = (__u64)&here;");
    let wide = |table: &str| {
        linked(&bytes, "p", table, |plan| {
            let code = &plan.programs[0].code;
            let at = code.chunks_exact(8).position(|insn| insn[0] == 0x18 && insn[1] >> 4 == 0).unwrap();
            let half = |at: usize| u32::from_le_bytes(code[8 * at + 4..8 * at + 8].try_into().unwrap());
            u64::from(half(at + 1)) << 32 | u64::from(half(at))
        })
    };
    assert_eq!(wide("ksym ffffffff81000000 T here"), Ok(0xffff_ffff_8100_0000));
    assert_eq!(wide("ksym ffffffff81000000 d here.llvm.7"), Ok(0xffff_ffff_8100_0000));
    for (table, words) in [
        ("ksym 0 T here", "hides from the agent"),
        ("ksym ffffffff81000000 T there", "does not have"),
        ("ksym ffffffff81000000 T here\nksym ffffffff81000008 T here", "several symbols"),
    ] {
        let refused = wide(table).unwrap_err();
        assert!(refused.contains("\"here\"") && refused.contains(words), "{table}: {refused}");
    }
    let weak = program("extern const void here __ksym __weak;", "out[0] = (__u64)&here;");
    linked(&weak, "p", "", |plan| assert_eq!(plan.programs.len(), 1)).unwrap();
}

#[test]
fn functions_of_the_kernel_are_found_by_prototype_and_flavour() {
    let call = |declaration: &str, call: &str| program(declaration, call);
    let kfunc = |bytes: &[u8]| {
        linked(bytes, "p", "", |plan| {
            let program = &plan.programs[0];
            let calls = program.code.chunks_exact(8).filter(|insn| insn[0] == 0x85);
            let calls: Vec<(u8, i32)> =
                calls.map(|insn| (insn[1] >> 4, i32::from_le_bytes(insn[4..].try_into().unwrap()))).collect();
            (calls, program.poisoned.places().filter_map(|at| program.poisoned.get(at)).collect::<Vec<_>>())
        })
    };
    // `void bpf_rcu_read_lock(void)` is there since 6.2.
    let (calls, invalid) = kfunc(&call("extern void bpf_rcu_read_lock(void) __ksym;", "bpf_rcu_read_lock();")).unwrap();
    assert!(matches!(calls[..], [(2, id)] if id > 0) && invalid.is_empty(), "{calls:?}");
    let flavoured = call("extern void bpf_rcu_read_lock___mine(void) __ksym;", "bpf_rcu_read_lock___mine();");
    assert_eq!(kfunc(&flavoured).unwrap().0, calls);
    let other = kfunc(&call("extern void bpf_rcu_read_lock(int) __ksym;", "bpf_rcu_read_lock(1);")).unwrap_err();
    assert!(other.contains("bpf_rcu_read_lock") && other.contains("otherwise"), "{other}");
    let none = kfunc(&call("extern void never_was(void) __ksym;", "never_was();")).unwrap_err();
    assert!(
        none.contains("\"never_was\"") && none.contains("functions and variables of modules can't be used"),
        "{none}"
    );
    let weak = call("extern void never_was(void) __ksym __weak;", "never_was();");
    let (calls, invalid) = kfunc(&weak).unwrap();
    assert_eq!(invalid, [Invalid::Function("never_was".to_owned())]);
    assert!(matches!(calls[..], [(0, number)] if number >= 2_002_000_000), "{calls:?}");
}
