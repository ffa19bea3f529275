//! Containment: work on a stranger's bytes, whose panic ends that work alone.
//!
//! A panic hook that prints would put the bytes into the log: messages of panics quote what they were about. So a contained
//! panic prints nothing; where it happened and what it said come back as a value, short and escaped, and whoever asked for
//! the work says it in one line. Other panics go to the hook that was there before.

use std::{
    cell::RefCell,
    fmt,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    path::Path,
    sync::Once,
};

use sockeye_crds::names::printable;

thread_local! {
    /// Within contained work, what its panic said.
    static WORK: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// What a panic said, fit to be shown.
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

/// Does the work; its panic is an error. What the work can reach must not matter any more after its panic.
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
        // A payload may itself panic when it is dropped; those of `panic!` do not, and there are no others here.
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
    fn a_panic_is_an_error_in_one_short_line() {
        let text = format!("\u{1b}[2J\n\r{}", "é".repeat(5000));
        let said = contain(|| -> () { panic!("{text}") }).unwrap_err().to_string();
        assert!(said.starts_with("a panic at contain.rs:"), "{said}");
        assert!(said.len() < 400 && !said.chars().any(char::is_control), "{said}");
        assert_eq!(contain(|| 7), Ok(7));
    }

    #[test]
    fn containments_nest() {
        let both = contain(|| contain(|| -> () { panic!("inner") }).unwrap_err().to_string()).unwrap();
        assert!(both.contains("inner"), "{both}");
        assert!(contain(|| -> () { panic!("outer") }).unwrap_err().to_string().contains("outer"));
    }

    #[test]
    fn other_panics_go_where_they_went() {
        let joined = std::thread::spawn(|| {
            let _ = contain(|| ());
            panic!("not contained: this line belongs into the test's output");
        })
        .join();
        assert!(joined.is_err());
    }
}
