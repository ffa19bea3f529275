//! The command `builtins`: writes the programs that ship with sockeye as ELF objects, one file each, so that they can
//! be signed. IO: writes files.

use std::{fs, io, path::Path};

use sockeye_crds::Builtin;
use sockeye_ebpf::programs::builtin;

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing {path}: {source}")]
pub struct Error {
    path: String,
    source: io::Error,
}

/// Writes each builtin to `NAME.o` in a directory, which is created if it does not exist. An existing file is replaced.
pub fn write(directory: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| Error { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    for name in Builtin::ALL {
        let path = directory.join(format!("{name}.o"));
        fs::write(&path, builtin(name)).map_err(failed(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_builtin_becomes_a_file_with_its_bytes() {
        let parent = std::env::temp_dir().join(format!("sockeye-builtins-{}", std::process::id()));
        let directory = parent.join("new");
        for _ in 0..2 {
            write(&directory).unwrap();
        }
        for name in Builtin::ALL {
            assert_eq!(fs::read(directory.join(format!("{name}.o"))).unwrap(), builtin(name));
        }
        let error = write(&directory.join("tcp-rtt.o")).unwrap_err().to_string();
        assert!(error.contains("tcp-rtt.o"), "{error}");
        fs::remove_dir_all(parent).unwrap();
    }
}
