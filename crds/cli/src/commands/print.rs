//! Standard output and standard error.

use std::io::{ErrorKind, Write as _, stdout};

use serde::Serialize;

use super::context::Context;
use crate::output::{Table, structured};

/// Prints text. A reader that has gone, as `head` goes, is no error.
///
/// # Errors
/// Fails where it can't be written.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        done => Ok(done?),
    }
}

/// Prints a table, or in a form for programs the value that it shows.
///
/// # Errors
/// Fails where the form does not fit the value, or it can't be written.
pub fn table(context: &Context, table: &Table, value: &impl Serialize) -> anyhow::Result<()> {
    if context.format.is_table() {
        return text(&table.render(context.format.is_wide(), context.no_headers));
    }
    structured(context, value)
}

/// Prints a value in a form for programs.
///
/// # Errors
/// Fails where the form does not fit the value, or it can't be written.
pub fn structured(context: &Context, value: &impl Serialize) -> anyhow::Result<()> {
    text(&structured::render(&serde_json::to_value(value)?, &context.format)?)
}

/// Prints lines about what is missing in the answer.
pub fn notes(notes: &[String]) {
    for note in notes {
        eprintln!("note: {}", one_line(note));
    }
}

/// Prints an error in one line.
pub fn error(error: &anyhow::Error) {
    eprintln!("error: {}", one_line(&format!("{error:#}")));
}

fn one_line(text: &str) -> String {
    sockeye_crds::names::line(text, 2000)
}
