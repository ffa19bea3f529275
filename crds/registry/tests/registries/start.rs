//! Starts registries, and the tools that push to them.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use sockeye_image::Reference;
use sockeye_registry::{Client, Credentials, RegistrySettings, Settings};
use tempfile::TempDir;

use crate::certificate::{Authority, pem};

/// The user and password of registries that want some.
pub const USER: (&str, &str) = ("user", "open sesame");
/// bcrypt of that password, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";

/// The part of docker-registry's configuration that is about TLS.
pub const TLS: &str = "  tls:\n    certificate: FOLDER/server.pem\n    key: FOLDER/server.key\n";

/// The paths of the tools.
pub struct Tools {
    pub oras: PathBuf,
    docker_registry: PathBuf,
    pub cosign: PathBuf,
    with_referrers: PathBuf,
}

/// Returns the path of a script about registries.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/registry").join(name)
}

/// Returns the tools, which are fetched and built once.
pub fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let output = Command::new(script("tools.sh")).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "tests/registry/tools.sh: {}", output.status);
        let mut paths =
            String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect::<Vec<_>>().into_iter();
        let mut next = || paths.next().unwrap();
        Tools { oras: next(), docker_registry: next(), cosign: next(), with_referrers: next() }
    })
}

/// A registry that runs, and a folder for what is pushed.
pub struct Registry {
    pub authority: String,
    pub folder: TempDir,
    child: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// Starts go-containerregistry's, which has the list of referrers.
    pub fn with_referrers() -> Self {
        let mut child = Command::new(&tools().with_referrers).stdout(Stdio::piped()).spawn().unwrap();
        let mut authority = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut authority).unwrap();
        Self { authority: authority.trim().to_owned(), folder: TempDir::new().unwrap(), child }
    }

    /// Starts Debian's docker-registry, with these lines in its configuration.
    pub fn docker(folder: TempDir, lines: &str) -> Self {
        let authority = format!("127.0.0.1:{}", free_port());
        let lines = lines.replace("FOLDER", &folder.path().display().to_string());
        fs::write(folder.path().join("more.yml"), lines).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(script("serve.sh"));
        command.arg(folder.path()).arg(&authority).env("DOCKER_REGISTRY", &tools().docker_registry);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let registry = Self { authority, folder, child };
        let start = Instant::now();
        while std::net::TcpStream::connect(&registry.authority).is_err() {
            let log = || fs::read_to_string(registry.folder.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(20), "the registry does not answer: {}", log());
            sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Starts one without TLS and users.
    pub fn plain() -> Self {
        Self::docker(TempDir::new().unwrap(), "")
    }

    /// Starts one with a certificate for 127.0.0.1, which wants to know who asks by Basic authentication.
    pub fn with_tls_and_users(authority: &Authority) -> Self {
        let folder = TempDir::new().unwrap();
        write_certificates(&folder, authority);
        fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
        Self::docker(folder, &format!("{TLS}auth:\n  htpasswd:\n    realm: x\n    path: FOLDER/htpasswd\n"))
    }

    /// Runs oras in the folder, with the options that this registry needs, and returns what it prints.
    pub fn oras(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&tools().oras);
        command.current_dir(self.folder.path()).args(arguments).env("HOME", self.folder.path());
        run(&mut command)
    }

    /// Writes a file into the folder.
    pub fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    /// Returns the reference of an image here.
    pub fn image(&self, name: &str) -> Reference {
        format!("{}/{name}", self.authority).parse().unwrap()
    }

    /// Returns a client that speaks plain HTTP to this registry.
    pub fn client(&self) -> Client {
        let registry = RegistrySettings { insecure: true, realm_hosts: Vec::new() };
        let registries = [(self.authority.clone(), registry)].into();
        Client::new(Settings { registries, system_authorities: false, ..Settings::default() }).unwrap()
    }
}

/// Runs a command, and returns what it prints.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Writes the certificate and key of a server, and the certificate of its authority.
pub fn write_certificates(folder: &TempDir, authority: &Authority) {
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("ca.pem", &authority.pem);
    write("server.pem", &pem("CERTIFICATE", &authority.certificate));
    write("server.key", &pem("PRIVATE KEY", &authority.key));
}

/// Returns the pull secret of a registry.
pub fn secret(authority: &str) -> Credentials {
    let config = serde_json::json!({"auths": {authority: {"username": USER.0, "password": USER.1}}});
    Credentials::from_docker_config(config.to_string().as_bytes()).unwrap()
}

/// Returns a port that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
