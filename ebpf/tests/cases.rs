//! What users bring (tests/objects/cases): what the operator says of each before a kernel is asked, and what the linker
//! makes of it. tests/oracle compares the same objects with libbpf.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::json;
use sockeye_crds::{BpfProgramSpec, Reason, Refusal, revision::ProgramRef};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::{
    Accepted, Object, check,
    link::{LinkError, MapRequest, Plan, ProgramKind, Request, link},
    object::image::Image,
    programs::fixtures,
    values::settings::Settings,
};
use sockeye_ebpf_testing::{
    cases::{built, case, compiled},
    kernel::TableKernel,
};

fn spec(programs: &[&str], more: serde_json::Value) -> BpfProgramSpec {
    let programs: Vec<_> = programs.iter().map(|name| json!({"name": name})).collect();
    let mut spec = json!({"bytecode": {"inline": ""}, "attach": [{"type": "Node"}], "programs": programs});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn checked(bytes: &[u8], programs: &[&str]) -> Result<Accepted, Refusal> {
    check(&spec(programs, json!({})), bytes)
}

fn accepted(name: &str, programs: &[&str]) -> Accepted {
    checked(&case(name), programs).unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
}

#[track_caller]
fn assert_refused(refused: Result<Accepted, Refusal>, reason: Reason, words: &[&str]) {
    let refusal = refused.unwrap_err();
    assert_eq!(refusal.reason, reason, "{refusal}");
    words.iter().for_each(|word| assert!(refusal.message.contains(word), "nothing of {word:?} in: {refusal}"));
    provoked(refusal.reason, &refusal.message);
}

/// Links an object for a kernel with the types of the running one, and looks at the plan.
fn linked<T>(bytes: &[u8], programs: &[&str], look: impl FnOnce(Result<Plan<'_>, LinkError>) -> T) -> T {
    let object = Object::read(bytes).unwrap();
    let mut selection = object.select(programs.iter().copied(), []).unwrap();
    let info = object.info(&mut selection);
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    let request = Request {
        programs: programs.iter().map(|name| (*name, kind)).collect(),
        maps: info.maps.iter().map(|map| (map.name.as_str(), MapRequest::default())).collect(),
    };
    let types = std::fs::read("/sys/kernel/btf/vmlinux").ok();
    let settings = Settings::default();
    look(link(&object, &request, &settings, &TableKernel::new(true, types)))
}

#[test]
fn what_the_spec_does_not_name_does_no_harm() {
    for (name, programs) in [
        ("unknown-section", &["count"][..]),
        ("optional-section", &["maybe", "always"]),
        ("kfunc-of-another-program", &["count"]),
        ("core-of-another-program", &["count"]),
        ("core-of-a-module", &["prog"]),
        ("seventy-programs", &["count"]),
        ("license-padded", &["count"]),
        ("license-none", &["count"]),
        ("bss-of-3-mib", &["count"]),
        ("legacy-annotated-map", &["count"]),
        ("enum-key", &["prog"]),
        ("padding", &["add"]),
        ("kconfig", &["count"]),
        ("lock-in-data", &["count"]),
        ("lock-in-map", &["count"]),
    ] {
        accepted(name, programs);
        linked(&case(name), programs, |plan| assert_eq!(plan.unwrap().programs.len(), programs.len(), "{name}"));
    }
    let object = accepted("seventy-programs", &["count"]).object;
    assert_eq!(object.programs.len(), 64, "a status lists as many as it has room for");
    assert!(object.programs.iter().any(|program| program.name == "count"));
}

#[test]
fn functions_are_known_by_section_and_offset() {
    accepted("functions-at-one-offset", &["filter"]);
    linked(&case("functions-at-one-offset"), &["filter"], |plan| {
        let code = &plan.unwrap().programs[0].code;
        let calls: Vec<usize> = code
            .chunks_exact(8)
            .enumerate()
            .filter(|(_, instruction)| instruction[..2] == [0x85, 0x10])
            .map(|(at, instruction)| at + 1 + i32::from_le_bytes(instruction[4..].try_into().unwrap()) as usize)
            .collect();
        let [allow, deny] = calls[..] else { panic!("{calls:?}") };
        assert_ne!(allow, deny, "two functions at one offset of two sections became one");
    });
}

#[test]
fn what_no_kernel_can_run_is_refused_before_dispatch() {
    for (name, program, words) in [
        ("extern-variable", "count", &["\"elsewhere\" is defined in no object", "bpftool gen object"][..]),
        ("extern-address", "prog", &["\"somewhere\" is defined in no object"]),
    ] {
        assert_refused(checked(&case(name), &[program]), Reason::InvalidObject, words);
    }
    let bytes = case("map-without-entries");
    assert_refused(checked(&bytes, &["count"]), Reason::InvalidSpec, &["map m says no max_entries", "maxEntries"]);
    let sized = spec(&["count"], json!({"maps": [{"name": "m", "maxEntries": 8}]}));
    check(&sized, &bytes).unwrap();
}

/// Compiles a program `p` of type sockops that uses the map `m`.
fn using(definition: &str) -> Vec<u8> {
    compiled(&format!(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n\
         struct {{ {definition} }} m SEC(\".maps\");\n\
         SEC(\"sockops\") int p(struct bpf_sock_ops *ops) {{ int k = 0; return !!bpf_map_lookup_elem(&m, &k); }}\n\
         char LICENSE[] SEC(\"license\") = \"GPL\";\n"
    ))
}

/// Defines the fields of a map in C: a type, and the others.
fn fields(map_type: &str, others: &str) -> String {
    format!("__uint(type, BPF_MAP_TYPE_{map_type}); {others}")
}

#[test]
fn maps_that_no_kernel_creates_are_refused_before_dispatch() {
    const INNER: &str = "__uint(max_entries, 2); __type(key, int);";
    for (map_type, others, words) in [
        ("HASH", "__uint(max_entries, 2); __type(value, int);", "map \"m\": it says no key"),
        ("LRU_HASH", "__uint(max_entries, 2); __type(key, int);", "map \"m\": it says no value"),
        ("QUEUE", "__uint(max_entries, 2);", "it says no value"),
        ("ARRAY", "__uint(max_entries, 2); __type(key, long); __type(value, int);", "its keys must have four bytes"),
        ("PERF_EVENT_ARRAY", "", "its keys must have four bytes"),
        ("SOCKMAP", "__uint(max_entries, 2); __type(value, int);", "its keys must have four bytes"),
        ("ARRAY_OF_MAPS", &format!("{INNER} __uint(value_size, 4);"), "__array(values, struct { ... })"),
        (
            "HASH_OF_MAPS",
            &format!("{INNER} __array(values, struct {{ __uint(type, 1); __type(key, int); __type(value, int); }});"),
            "the maps in it: it says no max_entries",
        ),
        (
            "LPM_TRIE",
            "__uint(max_entries, 2); __type(key, long); __type(value, int);",
            "__uint(map_flags, BPF_F_NO_PREALLOC)",
        ),
        ("SK_STORAGE", "__type(key, int); __type(value, int);", "__uint(map_flags, BPF_F_NO_PREALLOC)"),
        ("INODE_STORAGE", "__uint(map_flags, 1); __uint(key_size, 4); __uint(value_size, 4);", "wants their types"),
        (
            "TASK_STORAGE",
            "__uint(map_flags, 1); __uint(max_entries, 2); __type(key, int); __type(value, int);",
            "leave max_entries out",
        ),
    ] {
        let bytes = using(&fields(map_type, others));
        assert_refused(checked(&bytes, &["p"]), Reason::InvalidObject, &[words]);
    }
    for (map_type, others) in [
        ("PERF_EVENT_ARRAY", "__uint(key_size, 4); __uint(value_size, 4);"),
        ("SK_STORAGE", "__uint(map_flags, 1); __type(key, int); __type(value, int);"),
        ("STACK", "__uint(max_entries, 2); __type(value, int);"),
        ("RINGBUF", "__uint(max_entries, 4096);"),
        ("LPM_TRIE", "__uint(max_entries, 2); __uint(map_flags, 1); __type(key, long); __type(value, int);"),
    ] {
        checked(&using(&fields(map_type, others)), &["p"]).unwrap_or_else(|refusal| panic!("{map_type}: {refusal}"));
    }
    // The map of another BpfProgram holds what that one says.
    let outer = using(&fields("ARRAY_OF_MAPS", &format!("{INNER} __uint(value_size, 4);")));
    let shared = json!([{"name": "m", "mapRef": {"program": "other", "name": "m"}}]);
    check(&spec(&["p"], json!({ "maps": shared })), &outer).unwrap();
}

#[test]
fn addresses_that_data_can_not_hold_are_noted() {
    let about = |name: &str, programs: &[&str]| {
        let notes = accepted(name, programs).notes;
        notes.into_iter().find(|note| note.contains("the address of something"))
    };
    let note = about("pointers-in-data", &["first"]).unwrap();
    assert!(note.contains("chosen, words") && note.contains("char[]"), "{note}");
    // It uses no data that has addresses.
    assert_eq!(about("pointers-in-data", &["second"]), None);
    assert_eq!(about("plain", &["count"]), None);
}

#[test]
fn maps_that_differ_only_by_a_dot_are_accepted_where_the_agent_tells_them_apart() {
    let bytes = compiled(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n\
         int x SEC(\".data.a.b\") = 3, y SEC(\".data.a_b\") = 4;\n\
         SEC(\"sockops\") int p(struct bpf_sock_ops *ops) { return x++ + y++ > 0; }\n",
    );
    let accepted = checked(&bytes, &["p"]).unwrap();
    let maps: Vec<&str> = accepted.object.maps.iter().map(|map| map.name.as_str()).collect();
    assert_eq!(maps, [".data.a.b", ".data.a_b"]);
    let program = ProgramRef { name: "p".to_owned(), uid: "u".to_owned() };
    assert_eq!(accepted.into_revision_spec(program, 1, 1).template.requires, ["DistinctPins"]);
}

#[test]
fn what_a_program_can_not_use_is_refused_by_its_name() {
    let text = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nint mine SEC(\"own\") = 3;\n\
                SEC(\"sockops\") int p(struct bpf_sock_ops *ops) { return mine; }\n\
                SEC(\"sockops\") static __attribute__((used)) int apart(struct bpf_sock_ops *ops) { return 1; }\n\
                __attribute__((noinline)) int sub(struct bpf_sock_ops *ops) { return 1; }\n";
    let bytes = compiled(text);
    let words = ["its variable \"mine\" is in section \"own\"", ".data.mine"];
    assert_refused(checked(&bytes, &["p"]), Reason::InvalidObject, &words);
    assert_refused(checked(&bytes, &["apart"]), Reason::ProgramNotFound, &["static function", "without `static`"]);
    assert_refused(checked(&bytes, &["sub"]), Reason::ProgramNotFound, &["subprogram", "SEC("]);
    assert_refused(checked(&bytes, &["other"]), Reason::ProgramNotFound, &["it has: p"]);
}

#[test]
fn two_variables_of_one_name_are_ambiguous() {
    let bytes = case("two-statics");
    let set = spec(&["prog"], json!({"globals": {"limit": 9}}));
    let words = ["several variables of that name", ".rodata at byte 0", ".rodata at byte 4"];
    assert_refused(check(&set, &bytes), Reason::InvalidSpec, &words);
    checked(&bytes, &["prog"]).unwrap();
}

#[test]
fn a_section_without_direction_needs_an_attach_type() {
    let bytes = case("sk-skb-without-direction");
    let attach = json!([{"type": "Map", "map": {"name": "socks"}}]);
    let of = |programs: serde_json::Value| -> BpfProgramSpec {
        serde_json::from_value(json!({"bytecode": {"inline": ""}, "attach": attach, "programs": programs})).unwrap()
    };
    check(&of(json!([{"name": "msg"}])), &bytes).unwrap();
    let words = ["does not say what for", "sk_skb_stream_verdict"];
    assert_refused(check(&of(json!([{"name": "verdict"}])), &bytes), Reason::Unsupported, &words);
    let both = json!([{"name": "msg"}, {"name": "verdict", "attachType": "sk_skb_stream_verdict"}]);
    let revision = check(&of(both), &bytes).unwrap();
    assert_eq!(revision.programs[1].attach_type.as_deref(), Some("sk_skb_stream_verdict"));
    let wrong = json!([{"name": "verdict", "attachType": "cgroup_inet_egress"}]);
    assert_refused(check(&of(wrong), &bytes), Reason::InvalidSpec, &["attachType", "sk_skb_verdict"]);
}

#[test]
fn licences_are_the_objects_own() {
    assert_eq!(accepted("license-padded", &["count"]).object.license, "GPL");
    assert_eq!(accepted("license-none", &["count"]).object.license, "");
    linked(&case("license-none"), &["count"], |plan| assert!(plan.unwrap().license.is_empty()));
}

#[test]
fn objects_of_all_compilers_are_linked() {
    // GCC before 14 writes calls of functions that libbpf does not understand either.
    for compiler in ["gcc-10", "gcc-12"] {
        assert_refused(
            checked(&built(compiler, "plain"), &["direct"]),
            Reason::InvalidObject,
            &["calls what is no function"],
        );
    }
    for compiler in ["clang-11", "clang-14", "clang-19", "clang-22", "clang-23", "gcc-14", "gcc-16"] {
        let bytes = built(compiler, "plain");
        checked(&bytes, &["count", "direct"]).unwrap_or_else(|refusal| panic!("{compiler}: {refusal}"));
        linked(&bytes, &["count", "direct"], |plan| assert_eq!(plan.unwrap().programs.len(), 2, "{compiler}"));
    }
    let bytes = built("bpftool-7.8", "lock-in-map");
    linked(&bytes, &["count"], |plan| {
        // bpftool 7.8 writes a header of 32 bytes, which kernels before 7.2 refuse.
        let btf = plan.unwrap().btf.unwrap();
        assert_eq!(btf[4..8], 24u32.to_le_bytes());
    });
    let bytes = built("clang-19", "function-without-func-info");
    linked(&bytes, &["call_bare"], |plan| {
        let plan = plan.unwrap();
        assert!(plan.programs[0].functions.is_empty() && plan.notes[0].contains("bare"), "{:?}", plan.notes);
    });
}

#[test]
fn a_missing_function_of_the_kernel_is_named() {
    let bytes = case("kfunc");
    let object = Object::read(&bytes).unwrap();
    let request = Request { programs: [("redirect", ProgramKind::default())].into(), ..Request::default() };
    let settings = Settings::default();
    // A kernel without these functions.
    let other = Image::parse(fixtures::CORE).unwrap();
    let kernel = TableKernel::new(true, Some(other.section_named(".BTF").unwrap().data().unwrap().to_vec()));
    let refused = link(&object, &request, &settings, &kernel).unwrap_err();
    assert!(refused.is_of_kernel() && refused.to_string().contains("kernel function"), "{refused}");
    assert!(refused.to_string().contains("bpf_"), "{refused}");
}

/// What redirects or holds back bytes is known from the instructions of a program and of all functions that it calls.
#[test]
fn a_program_that_passes_everything_is_known() {
    let text = r#"
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        struct { __uint(type, BPF_MAP_TYPE_SOCKHASH); __uint(max_entries, 1); __type(key, int); __type(value, int); }
            sockets SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, int); }
            others SEC(".maps");
        __attribute__((noinline)) int far(struct sk_msg_md *msg)
        {
            int key = msg->size;

            return bpf_msg_redirect_hash(msg, &sockets, &key, BPF_F_INGRESS);
        }
        __attribute__((noinline)) int near(struct sk_msg_md *msg) { return far(msg) + 1; }
        SEC("sk_msg") int passes(struct sk_msg_md *msg) { return bpf_get_prandom_u32() ? SK_PASS : SK_DROP; }
        SEC("sk_msg") int applies(struct sk_msg_md *msg) { bpf_msg_apply_bytes(msg, 9); return SK_PASS; }
        SEC("sk_msg") int redirects(struct sk_msg_md *msg) { return near(msg); }
        SEC("sk_msg") int corks(struct sk_msg_md *msg) { bpf_msg_cork_bytes(msg, 9); return SK_PASS; }
        SEC("sk_msg") int jumps(struct sk_msg_md *msg) { bpf_tail_call(msg, &others, 0); return SK_PASS; }
        SEC("sk_skb/stream_verdict") int judges(struct __sk_buff *skb) { return SK_PASS; }
        char LICENSE[] SEC("license") = "GPL";"#;
    let names = ["passes", "applies", "redirects", "corks", "jumps", "judges"];
    let bytes = compiled(text);
    let object = Object::read(&bytes).unwrap();
    let info = object.info(&mut object.select(names, []).unwrap());
    let passing = info.programs.iter().filter(|program| program.passes_only).map(|program| program.name.as_str());
    assert_eq!(passing.collect::<Vec<_>>(), ["applies", "passes"]);
}
