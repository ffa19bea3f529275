//! The objects of tests/objects: minimal cases of what users bring, compiled where they are used, and those that other
//! compilers than this machine's built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/objects")
}

/// Returns an object that another compiler built, such as `built("clang-19", "plain")`.
pub fn built(compiler: &str, name: &str) -> Vec<u8> {
    let path = folder().join("built").join(compiler).join(format!("{name}.bpf.o"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compiles a case with this machine's clang.
pub fn case(name: &str) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let object = compile(&folder().join("cases").join(format!("{name}.bpf.c")), &out.path().join("a.o"));
    let part = folder().join("cases").join(format!("{name}.part.c"));
    if !part.exists() {
        return fs::read(object).unwrap();
    }
    let part = compile(&part, &out.path().join("b.o"));
    let linked = out.path().join("linked.o");
    // Debian has it in /usr/sbin, which not every PATH has.
    let bpftool = if Path::new("/usr/sbin/bpftool").exists() { "/usr/sbin/bpftool" } else { "bpftool" };
    run(Command::new(bpftool).args(["gen", "object"]).arg(&linked).arg(object).arg(part));
    fs::read(linked).unwrap()
}

fn compile(source: &Path, object: &Path) -> PathBuf {
    let clang = std::env::var("SOCKEYE_CLANG").unwrap_or_else(|_| "clang-16".to_owned());
    let text = fs::read_to_string(source).unwrap();
    let own = text.lines().find_map(|line| line.strip_prefix("// flags: ")).unwrap_or("-O2 -mcpu=v3");
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(clang);
    command.args(["-target", "bpf", "-g", "-w"]).args(own.split_whitespace()).arg(include);
    run(command.arg("-c").arg(source).arg("-o").arg(object));
    object.to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
