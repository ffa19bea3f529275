//! The colours of standard output, if it is a terminal. Colours are used on a terminal only, and not where
//! `NO_COLOR` is set (no-color.org).

use std::{env, io::IsTerminal as _};

/// Colours, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colours(bool);

impl Colours {
    /// Returns those of standard output.
    pub fn of_stdout() -> Self {
        let is_off = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !is_off && env::var_os("TERM").is_none_or(|term| term != "dumb"))
    }

    /// Returns text that says that something is well.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Returns text that says that something is wrong.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Returns text that is a heading.
    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
