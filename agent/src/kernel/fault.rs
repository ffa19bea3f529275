//! `Fault`: where a test lets the agent die or halt, or a call fail: before any call that changes something or asks the kernel.
//! Without the feature `faults` nothing of it is in the binary.
//!
//! `SOCKEYE_FAULT` says what and where: `kill@*#17` ends the process by SIGKILL before the 17th call, `stop@BPF_LINK_UPDATE`
//! halts it by SIGSTOP until SIGCONT, `28@BPF_OBJ_PIN` lets each such call fail with errno 28, `12@BPF_MAP_CREATE#2` the second
//! one alone. Several are parted by commas. `22@sockmap` makes of a kernel one that has no links for maps, nor says what is
//! attached to them.

use std::io;

/// Before each call. `call` names it, as errors do.
#[cfg(not(feature = "faults"))]
#[inline(always)]
#[expect(clippy::unnecessary_wraps, clippy::inline_always, reason = "as the other one, and nothing at all")]
pub(super) fn point<S: AsRef<str>>(_call: impl FnOnce() -> S) -> io::Result<()> {
    Ok(())
}

/// Before each call. `call` names it, as errors do.
#[cfg(feature = "faults")]
pub(super) fn point<S: AsRef<str>>(call: impl FnOnce() -> S) -> io::Result<()> {
    let call = call();
    plan::FAULTS.iter().try_for_each(|fault| fault.meet(call.as_ref()))
}

#[cfg(feature = "faults")]
mod plan {
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

    /// What the environment asks for. A word that can't be read ends the process: a test must not pass without its fault.
    pub static FAULTS: LazyLock<Vec<Fault>> = LazyLock::new(|| {
        let text = env::var("SOCKEYE_FAULT").unwrap_or_default();
        let faults = text.split(',').filter(|text| !text.is_empty()).map(Fault::parse).collect::<Option<_>>();
        faults.unwrap_or_else(|| {
            tracing::error!("SOCKEYE_FAULT can't be read: {text}");
            process::exit(2)
        })
    });

    /// A fault, and how often its place was met.
    pub struct Fault {
        what: What,
        /// How the calls' names begin.
        call: String,
        /// Which of them; absent means each.
        nth: Option<u64>,
        met: AtomicU64,
    }

    enum What {
        Signal(Signal),
        Errno(i32),
    }

    impl Fault {
        fn parse(text: &str) -> Option<Self> {
            let (what, place) = text.split_once('@')?;
            let (call, nth) = match place.split_once('#') {
                Some((call, nth)) => (call, Some(nth.parse().ok()?)),
                None => (place, None),
            };
            let what = match what {
                "kill" => What::Signal(Signal::KILL),
                "stop" => What::Signal(Signal::STOP),
                errno => What::Errno(errno.parse().ok()?),
            };
            Some(Self { what, call: call.trim_end_matches('*').to_owned(), nth, met: AtomicU64::new(0) })
        }

        pub fn meet(&self, call: &str) -> io::Result<()> {
            if !call.starts_with(&self.call) {
                return Ok(());
            }
            let met = self.met.fetch_add(1, Ordering::Relaxed) + 1;
            if self.nth.is_some_and(|nth| nth != met) {
                return Ok(());
            }
            match self.what {
                What::Errno(errno) => {
                    tracing::warn!(call, errno, "this call fails because SOCKEYE_FAULT says so");
                    Err(io::Error::from_raw_os_error(errno))
                }
                What::Signal(signal) => {
                    let _ = kill_process(getpid(), signal);
                    // Until the signal is there, which another thread may be given.
                    sleep(Duration::from_millis(100));
                    Ok(())
                }
            }
        }
    }
}
