//! `Fault`: kills or stops the agent, or fails a call, where a test asks for it. Each call that changes something or
//! asks the kernel is such a place. Without the feature `faults` the binary contains nothing of this.
//!
//! `SOCKEYE_FAULT` lists faults, separated by commas:
//! - `kill@*#17` kills the process (SIGKILL) before the 17th call;
//! - `stop@BPF_LINK_UPDATE` stops it (SIGSTOP) before each link update until SIGCONT;
//! - `28@BPF_OBJ_PIN` fails each such call with errno 28, `12@BPF_MAP_CREATE#2` only the second one with errno 12;
//! - `22@sockmap` imitates a kernel that has no links for maps and no query of what is attached to them.

use std::io;

/// Marks a place before a call where a fault may strike. `call` names the call as errors do.
#[cfg(not(feature = "faults"))]
#[inline(always)]
#[expect(
    clippy::unnecessary_wraps,
    clippy::inline_always,
    reason = "has the signature of the other one and compiles to nothing"
)]
pub(super) fn point<S: AsRef<str>>(_call: impl FnOnce() -> S) -> io::Result<()> {
    Ok(())
}

/// Marks a place before a call where a fault may strike. `call` names the call as errors do.
#[cfg(feature = "faults")]
pub(super) fn point<S: AsRef<str>>(call: impl FnOnce() -> S) -> io::Result<()> {
    let call = call();
    injected::FAULTS.iter().try_for_each(|fault| fault.strike(call.as_ref()))
}

#[cfg(feature = "faults")]
mod injected {
    use std::{
        env, io, process,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
        thread::sleep,
        time::Duration,
    };

    use rustix::process::{Signal, getpid, kill_process};

    /// The faults that the environment asks for. An invalid one ends the process: a test must not pass without its
    /// fault.
    pub static FAULTS: LazyLock<Vec<Fault>> = LazyLock::new(|| {
        let text = env::var("SOCKEYE_FAULT").unwrap_or_default();
        let faults = text.split(',').filter(|text| !text.is_empty()).map(Fault::parse).collect::<Option<_>>();
        faults.unwrap_or_else(|| {
            tracing::error!("SOCKEYE_FAULT can't be read: {text}");
            process::exit(2)
        })
    });

    /// A fault, and how often its place was reached.
    pub struct Fault {
        action: Action,
        /// The prefix of the calls' names.
        call: String,
        /// The number of the one call that it strikes; `None` means each call.
        nth: Option<u64>,
        reached: AtomicU64,
    }

    enum Action {
        Signal(Signal),
        Errno(i32),
    }

    impl Fault {
        fn parse(text: &str) -> Option<Self> {
            let (action, place) = text.split_once('@')?;
            let (call, nth) = match place.split_once('#') {
                Some((call, nth)) => (call, Some(nth.parse().ok()?)),
                None => (place, None),
            };
            let action = match action {
                "kill" => Action::Signal(Signal::KILL),
                "stop" => Action::Signal(Signal::STOP),
                errno => Action::Errno(errno.parse().ok()?),
            };
            let call = call.trim_end_matches('*').to_owned();
            Some(Self { action, call, nth, reached: AtomicU64::new(0) })
        }

        /// Acts if the call is one that the fault strikes.
        pub fn strike(&self, call: &str) -> io::Result<()> {
            if !call.starts_with(&self.call) {
                return Ok(());
            }
            let reached = self.reached.fetch_add(1, Ordering::Relaxed) + 1;
            if self.nth.is_some_and(|nth| nth != reached) {
                return Ok(());
            }
            match self.action {
                Action::Errno(errno) => {
                    tracing::warn!(call, errno, "this call fails because SOCKEYE_FAULT says so");
                    Err(io::Error::from_raw_os_error(errno))
                }
                Action::Signal(signal) => {
                    let _ = kill_process(getpid(), signal);
                    // The kernel may deliver the signal to another thread first.
                    sleep(Duration::from_millis(100));
                    Ok(())
                }
            }
        }
    }
}
