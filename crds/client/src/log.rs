//! The log of a process, on standard error: `RUST_LOG` sets its level, an argument its format. Does IO.
//!
//! What a command prints on standard output is no log, and has a format of its own.

use std::io;

use clap::{Args, ValueEnum};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt as _};

/// The arguments that every command has about its log. They may stand before and after the command's name.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct LogArgs {
    /// The format of the log.
    #[arg(long, env = "SOCKEYE_LOG_FORMAT", global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// The format of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text for each message.
    #[default]
    Text,
    /// One object on one line for each message, which is in it as fields.message.
    Json,
}

impl LogArgs {
    /// Starts the log of this process. Without a valid `RUST_LOG` the level is info.
    ///
    /// # Panics
    /// Panics if the process has a log already.
    pub fn init(self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        subscriber(self.log_format, filter, io::stderr).init();
    }
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    match format {
        LogFormat::Text => Box::new(log.finish()),
        LogFormat::Json => Box::new(log.json().finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use clap::{Parser, Subcommand};
    use serde_json::{Value, json};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(format, EnvFilter::new(filter), move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_message_is_a_line_of_text_or_of_json() {
        let warn = || tracing::warn!(target: "here", target = 1, pod = "a \"b\"\n", "the pod's cgroup is gone");
        let text = logged(LogFormat::Text, "info", warn);
        assert!(text.ends_with("Z  WARN here: the pod's cgroup is gone target=1 pod=\"a \\\"b\\\"\\n\"\n"), "{text}");
        let line = logged(LogFormat::Json, "info", warn);
        assert_eq!(line.lines().count(), 1, "{line}");
        let mut value: Value = serde_json::from_str(&line).unwrap();
        assert!(value["timestamp"].take().is_string(), "{line}");
        // A field of any name leaves the log's own alone.
        let fields = json!({"message": "the pod's cgroup is gone", "target": 1, "pod": "a \"b\"\n"});
        assert_eq!(value, json!({"timestamp": null, "level": "WARN", "target": "here", "fields": fields}));
    }

    #[test]
    fn both_formats_keep_to_the_level() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged(format, "error", || {
                tracing::info!("one");
                tracing::error!("two");
            });
            assert!(log.contains("two") && !log.contains("one"), "{log}");
        }
    }

    #[derive(Parser)]
    struct Process {
        #[command(flatten)]
        log: LogArgs,
        #[command(subcommand)]
        command: Option<Command>,
    }

    #[derive(Subcommand)]
    enum Command {
        Run,
    }

    #[test]
    fn the_format_may_stand_before_and_after_the_command() {
        let parse = |line: &str| Process::try_parse_from(line.split(' ')).map(|process| process.log.log_format);
        for line in ["x --log-format json run", "x run --log-format json", "x --log-format json"] {
            assert_eq!(parse(line).unwrap(), LogFormat::Json, "{line}");
        }
        for line in ["x", "x run", "x run --log-format text"] {
            assert_eq!(parse(line).unwrap(), LogFormat::Text, "{line}");
        }
        assert!(parse("x run --log-format yaml").is_err());
        assert!(Process::try_parse_from(["x", "run"]).unwrap().command.is_some());
    }
}
