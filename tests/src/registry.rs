//! A real registry beside the local cluster or on loopback, and the public tools that push to it and sign.

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{repo, run, wait_until};

/// The registry's host and port on the gateway of the cluster's network.
pub const REGISTRY: &str = "198.18.0.1:5000";

/// A registry answers within this time.
const START: Duration = Duration::from_secs(20);

/// The media types of an artifact of sockeye's.
const ARTIFACT: &str = "application/vnd.sockeye.bpf.v1";
const OBJECT: &str = "application/vnd.sockeye.bpf.object.v1";

/// Debian's docker-registry, with what was pushed before. It ends with the test.
pub struct Registry {
    /// Its host and port.
    pub host: String,
    child: Option<Child>,
    tools: Tools,
    folder: PathBuf,
    /// The script that runs a command in the cluster's network.
    runner: Option<PathBuf>,
}

/// Paths of oras, docker-registry and cosign.
struct Tools {
    oras: String,
    registry: String,
    cosign: String,
}

/// The content of a registry, served by TLS as well. It ends with the test.
pub struct TlsRegistry {
    /// Its host and port.
    pub host: String,
    child: Child,
}

impl Drop for TlsRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A release that was published.
pub struct Release {
    /// The digest of its chart.
    pub chart_digest: String,
    folder: PathBuf,
}

impl Release {
    /// Returns the signature of a program that ships with sockeye.
    pub fn signature(&self, builtin: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join(format!("builtins/{builtin}.bundle.json")))?)
    }
}

impl Registry {
    /// Starts an empty registry beside the local cluster.
    pub fn on_cluster() -> Result<Self> {
        let target = repo().join("target/cluster");
        Self::start(REGISTRY.to_owned(), target.join("registry"), Some(target.join("run")))
    }

    /// Starts an empty registry on loopback, whose files are in a folder.
    pub fn on_loopback(folder: &Path) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Self::start(free.to_string(), folder.join("registry"), None)
    }

    fn start(host: String, folder: PathBuf, runner: Option<PathBuf>) -> Result<Self> {
        let printed = run(&mut Command::new(repo().join("tests/registry/tools.sh")))?;
        let mut paths = printed.lines().map(str::to_owned);
        let mut next = || paths.next().context("tests/registry/tools.sh prints too few paths");
        let tools = Tools { oras: next()?, registry: next()?, cosign: next()? };
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let mut registry = Self { host, child: None, tools, folder, runner };
        registry.come_back()?;
        Ok(registry)
    }

    /// Starts the registry again, with its content.
    pub fn come_back(&mut self) -> Result<()> {
        self.child = Some(self.serve(&self.folder, &self.host)?);
        let list = ["repo", "ls", "--plain-http", &self.host];
        wait_until(START, "the registry", || Ok(run(self.command(&self.tools.oras).args(list)).is_ok()))?;
        Ok(())
    }

    /// Serves the same content by TLS too, with server.crt and server.key of a folder.
    pub fn with_tls(&self, folder: &Path) -> Result<TlsRegistry> {
        let host = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        symlink(self.folder.join("content"), folder.join("content"))?;
        let file = |name: &str| folder.join(name).display().to_string();
        let more = format!("  tls: {{certificate: '{}', key: '{}'}}\n", file("server.crt"), file("server.key"));
        fs::write(folder.join("more.yml"), more)?;
        let registry = TlsRegistry { child: self.serve(folder, &host)?, host };
        wait_until(START, "the registry", || Ok(TcpStream::connect(&registry.host).is_ok()))?;
        Ok(registry)
    }

    fn serve(&self, folder: &Path, host: &str) -> Result<Child> {
        let script = repo().join("tests/registry/serve.sh").display().to_string();
        let mut command = self.command("setpriv");
        command.args(["--pdeathsig", "KILL", &script, &folder.display().to_string(), host]);
        command.env("DOCKER_REGISTRY", &self.tools.registry);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// Ends the registry.
    pub fn go_away(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Pushes an object under a tag of a repository, by oras. Returns the manifest's digest.
    pub fn push(&self, repository: &str, tag: &str, object: &[u8]) -> Result<String> {
        fs::write(self.folder.join("object.bpf.o"), object)?;
        let reference = format!("{}/{repository}:{tag}", self.host);
        let printed = self.run(
            &self.tools.oras,
            &["push", "--plain-http", "--artifact-type", ARTIFACT, &reference, &format!("object.bpf.o:{OBJECT}")],
        )?;
        let digest = printed.lines().find_map(|line| line.strip_prefix("Digest: "));
        Ok(digest.with_context(|| format!("oras printed no digest: {printed}"))?.trim().to_owned())
    }

    /// Makes a key by cosign. Returns its public half, in PEM.
    pub fn key(&self) -> Result<String> {
        if !self.folder.join("cosign.key").exists() {
            self.run(&self.tools.cosign, &["generate-key-pair"])?;
        }
        Ok(fs::read_to_string(self.folder.join("cosign.pub"))?)
    }

    /// Signs a manifest by that key, by cosign, as a bundle beside the image.
    pub fn sign(&self, repository: &str, digest: &str) -> Result<()> {
        ensure!(digest.starts_with("sha256:"), "{digest}");
        let image = format!("{}/{repository}@{digest}", self.host);
        let offline = ["--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "--yes"];
        self.run(&self.tools.cosign, &[&["sign", "--key", "cosign.key"], &offline[..], &[&image]].concat())?;
        Ok(())
    }

    /// Publishes what the cluster runs as a release is, signed by that key.
    pub fn publish_sockeye(&self) -> Result<Release> {
        let (script, folder) = (repo().join("tests/cluster/publish.sh"), self.folder.join("release"));
        let args = [self.host.clone(), "cosign.key".to_owned(), folder.display().to_string()];
        let mut command = self.command(&script.display().to_string());
        // The tools' own homes are in the folder; what was fetched and built before is where it always is.
        let cache = env::var("SOCKEYE_CACHE").or_else(|_| env::var("HOME").map(|home| home + "/.cache/sockeye"))?;
        let printed = run(command.args(args).env("SOCKEYE_CACHE", cache).current_dir(&self.folder))?;
        let chart_digest = printed.trim().to_owned();
        ensure!(chart_digest.starts_with("sha256:"), "{printed}");
        Ok(Release { chart_digest, folder })
    }

    fn run(&self, tool: &str, args: &[&str]) -> Result<String> {
        run(self.command(tool).args(args).current_dir(&self.folder))
    }

    /// Returns a command in the registry's network.
    fn command(&self, program: &str) -> Command {
        let mut command = match &self.runner {
            Some(runner) => Command::new(runner),
            None => Command::new("env"),
        };
        command.arg(program).env("COSIGN_PASSWORD", "").env("HOME", &self.folder);
        command
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.go_away();
    }
}
