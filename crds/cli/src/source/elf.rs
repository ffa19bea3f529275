//! The bytes of an ELF object. IO: files and standard input.

use std::{
    fs::File,
    io::{Read as _, stdin},
    path::Path,
};

use super::SourceError;

/// Reads a file, or standard input for `-`, up to a bound.
///
/// # Errors
/// Fails where it can't be read, or has more bytes.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, SourceError> {
    let wrong = |error| SourceError::File { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let most = limit as u64 + 1;
    if path == Path::new("-") {
        stdin().take(most).read_to_end(&mut bytes).map_err(wrong)?;
    } else {
        File::open(path).map_err(wrong)?.take(most).read_to_end(&mut bytes).map_err(wrong)?;
    }
    if bytes.len() > limit {
        let error = std::io::Error::other(format!("it has more than {limit} bytes, and no more are read"));
        return Err(wrong(error));
    }
    Ok(bytes)
}
