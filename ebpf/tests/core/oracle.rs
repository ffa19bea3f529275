//! `Oracle`: libbpf in a process of its own, which relocates the same instructions.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use sockeye_ebpf::btf::ext::CoreRelo;

/// Two instructions.
pub type Code = [u8; 16];

/// What libbpf makes of a relocation.
#[derive(Debug)]
pub struct Given {
    /// A negative errno, or 0.
    pub error: i32,
    pub code: Code,
    /// The text of the spec, empty if the record can't be read.
    pub spec: String,
}

/// The running process.
pub struct Oracle {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Oracle {
    /// Builds and starts the process. None where libbpf or a compiler can't be had, which is said.
    pub fn start() -> Option<Self> {
        static BUILT: OnceLock<Result<String, String>> = OnceLock::new();
        match BUILT.get_or_init(Self::build) {
            Ok(path) => {
                let mut child = Command::new(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
                let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
                Some(Self { child, input, output })
            }
            Err(why) => {
                println!("NOT COMPARED WITH LIBBPF: {why}");
                assert!(std::env::var_os("CI").is_none(), "CI must compare with libbpf");
                None
            }
        }
    }

    fn build() -> Result<String, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let out = format!("{}/core-oracle", env!("CARGO_TARGET_TMPDIR"));
        let script = "libbpf=$(tests/oracle/libbpf.sh) && \
            gcc -std=gnu11 -Wall -Wextra -Werror -O1 -I \"$libbpf/include\" ebpf/tests/core/libbpf.c \
            tests/oracle/glibc.c \"$(find \"$libbpf\" -name libbpf.a)\" -lelf -lz -o \"$1\"";
        let run = Command::new("bash").args(["-c", script, "bash", &out]).current_dir(root).output();
        match run {
            Ok(done) if done.status.success() => Ok(out),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Relocates instructions of one object. Without types of the kernel, those of the call before are taken.
    pub fn relocate(&mut self, local: &[u8], kernel: Option<&[u8]>, relos: &[(CoreRelo, Code)]) -> Vec<Given> {
        let mut case = Vec::new();
        let mut word = |word: u32, bytes: &[u8]| {
            case.extend(word.to_le_bytes());
            case.extend(bytes);
        };
        word(local.len() as u32, local);
        let kernel = kernel.unwrap_or_default();
        word(kernel.len() as u32, kernel);
        word(relos.len() as u32, &[]);
        for (CoreRelo { insn_off, type_id, access_str_off, kind }, code) in relos {
            [insn_off, type_id, access_str_off].into_iter().for_each(|field| word(*field, &[]));
            word(*kind, code);
        }
        self.input.write_all(&case).unwrap();
        self.input.flush().unwrap();
        relos.iter().map(|relo| self.read(relo)).collect()
    }

    fn read(&mut self, relo: &(CoreRelo, Code)) -> Given {
        let mut fixed = [0; 24];
        if self.output.read_exact(&mut fixed).is_err() {
            panic!("libbpf ended by {} at {relo:?}", self.child.wait().unwrap());
        }
        let word = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().unwrap());
        let mut spec = vec![0; word(20) as usize];
        self.output.read_exact(&mut spec).unwrap();
        let code = fixed[4..20].try_into().unwrap();
        Given { error: word(0).cast_signed(), code, spec: String::from_utf8_lossy(&spec).into_owned() }
    }
}
