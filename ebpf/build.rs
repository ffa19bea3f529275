//! Compiles the BPF programs with clang. The bytes depend only on the sources and clang, because examples contain them
//! and digests name them.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use object::{
    build::elf::{Builder, SectionData},
    elf::{SHT_PROGBITS, SHT_STRTAB},
};

const INSTALL: &str = "install them with: apt-get install clang-16 libbpf-dev linux-libc-dev (Debian 12), \
                       or name another clang in SOCKEYE_CLANG";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=SOCKEYE_CLANG");
    println!("cargo::rerun-if-changed=programs");
    match compile_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn compile_all() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let clang = clang()?;
    let mut shown = compile_folder(&clang, Path::new("programs"), &out)?;
    if env::var_os("CARGO_FEATURE_FIXTURES").is_some() {
        shown.extend(compile_folder(&clang, Path::new("programs/types"), &out)?);
        compile_folder(&clang, Path::new("programs/fixtures"), &out)?;
    }
    for object in shown {
        strip(&object).map_err(|e| format!("{}: {e}", object.display()))?;
    }
    Ok(())
}

fn clang() -> Result<String, String> {
    let named = env::var("SOCKEYE_CLANG").ok();
    let candidates = named.iter().map(String::as_str).chain(["clang-16", "clang"]);
    let runs = |clang: &&str| Command::new(clang).arg("--version").output().is_ok_and(|o| o.status.success());
    candidates.into_iter().find(runs).map(str::to_owned).ok_or_else(|| format!("no clang that runs: {INSTALL}"))
}

fn compile_folder(clang: &str, folder: &Path, out: &Path) -> Result<Vec<PathBuf>, String> {
    let mut objects = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let source = entry.map_err(|e| e.to_string())?.path();
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(".bpf.c") {
            let object = out.join(format!("{stem}.bpf.o"));
            compile(clang, &source, &object)?;
            objects.push(object);
        }
    }
    Ok(objects)
}

fn compile(clang: &str, source: &Path, object: &Path) -> Result<(), String> {
    let mut command = Command::new(clang);
    // v3 has 32-bit jumps and all atomics, and kernels support it since 5.12.
    command.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror"]);
    // Only linkers of machine code read the address-significance table.
    command.arg("-fno-addrsig");
    // Keeps this machine's paths out of the debug information.
    command.args(["-ffile-compilation-dir=.", "-fdebug-prefix-map=/="]);
    // Debian has asm/ below the multiarch directory, which clang does not search for this target.
    for include in ["/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu"] {
        if env::var("HOST").is_ok_and(|host| include.contains(host.split('-').next().unwrap_or_default())) {
            command.arg(format!("-I{include}"));
        }
    }
    let output = command.arg("-c").arg(source).arg("-o").arg(object).output().map_err(|e| format!("{clang}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let hint =
        if words.contains("file not found") { format!("; headers are missing: {INSTALL}") } else { String::new() };
    Err(format!("{}: {}{hint}", source.display(), words.trim().replace('\n', " | ")))
}

/// Removes DWARF from an object, as `llvm-strip -g` does. DWARF is most of the file, and BTF has the types and lines.
/// The compiler's version, which DWARF contains, moves to `.comment`, as in machine code. Test objects keep DWARF, as
/// users' objects may.
fn strip(object: &Path) -> Result<(), Box<dyn Error>> {
    let whole = fs::read(object)?;
    let mut elf = Builder::read(whole.as_slice())?;
    for section in &mut elf.sections {
        section.delete = [".debug", ".rel.debug"].iter().any(|dwarf| section.name.starts_with(dwarf.as_bytes()));
    }
    elf.delete_orphans();
    let comment = elf.sections.add();
    comment.name = ".comment".into();
    comment.sh_type = SHT_PROGBITS;
    comment.data = SectionData::Data(compiler(&whole).ok_or("it does not name its compiler")?.into());
    // clang writes section names into the symbols' string table.
    let names = elf.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(fs::write(object, stripped)?)
}

/// Returns the compiler's version from the DWARF strings.
fn compiler(object: &[u8]) -> Option<&[u8]> {
    let name = b"clang version ";
    object.split(|byte| *byte == 0).find(|text| text.windows(name.len()).any(|words| words == name))
}
