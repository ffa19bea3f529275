//! `contain`: runs work on untrusted bytes and turns its panic into an error.
//!
//! A contained panic prints nothing, because panic messages quote the data, and the log would then contain someone's
//! bytes. The place and the message of the panic come back as a value, short and escaped. Other panics go to the
//! previous hook.

use std::{
    cell::RefCell,
    fmt,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    path::Path,
    sync::Once,
};

use sockeye_crds::names::printable;

thread_local! {
    /// Set while contained work runs; its panic is stored here.
    static WORK: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// The place and the message of a panic, safe to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panicked {
    place: String,
    message: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a panic at {}: {}", self.place, self.message)
    }
}

/// Runs the work and returns its panic as an error. The caller must not use anything that the work may have left
/// inconsistent.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let contained = WORK.try_with(|work| match &mut *work.borrow_mut() {
                Some(panicked) => {
                    *panicked = Panicked::of(info);
                    true
                }
                None => false,
            });
            if contained != Ok(true) {
                before(info);
            }
        }));
    });
    let outer = WORK.replace(Some(Panicked::default()));
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    let panicked = WORK.replace(outer).unwrap_or_default();
    done.map_err(|payload| {
        // Dropping a payload could panic. The payloads of `panic!`, the only ones here, do not.
        drop(payload);
        panicked
    })
}

impl Panicked {
    fn of(info: &PanicHookInfo<'_>) -> Self {
        let file = info.location().map(|at| (Path::new(at.file()).file_name().unwrap_or_default(), at.line()));
        let (file, line) = file.unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("no words");
        Self { place: format!("{}:{line}", file.to_string_lossy()), message: printable(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_of_one_short_line() {
        let text = format!("\u{1b}[2J\n\r{}", "é".repeat(5000));
        let said = contain(|| -> () { panic!("{text}") }).unwrap_err().to_string();
        assert!(said.starts_with("a panic at contain.rs:"), "{said}");
        assert!(said.len() < 400 && !said.chars().any(char::is_control), "{said}");
        assert_eq!(contain(|| 7), Ok(7));
    }

    #[test]
    fn contained_work_may_contain_other_work() {
        let both = contain(|| contain(|| -> () { panic!("inner") }).unwrap_err().to_string()).unwrap();
        assert!(both.contains("inner"), "{both}");
        assert!(contain(|| -> () { panic!("outer") }).unwrap_err().to_string().contains("outer"));
    }

    #[test]
    fn other_panics_reach_the_previous_hook() {
        let joined = std::thread::spawn(|| {
            let _ = contain(|| ());
            panic!("not contained: this line belongs in the test's output");
        })
        .join();
        assert!(joined.is_err());
    }
}
