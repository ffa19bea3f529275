//! The command line as a plugin of kubectl: Krew installs it by the manifest that a release has, and Krew's own
//! validator of manifests says that it can.
//!
//! kubectl, kubectl-krew and validate-krew-manifest are in PATH (tests/run.sh api).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, LazyLock},
    thread,
};

const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// The archive of a release, with the binary that these tests were built with. Krew does not run it.
static ARCHIVE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("sockeye");
    let stripped = Command::new("strip").arg("-o").arg(&binary).arg(env!("CARGO_BIN_EXE_sockeye")).status();
    assert!(stripped.unwrap().success());
    fs::copy(repo().join("LICENSE"), folder.path().join("LICENSE")).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--use-compress-program", "gzip -1", "-c", "-C"]).arg(folder.path()).arg(".");
    stdout(&mut tar)
});

fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn stdout(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    stdout
}

/// The downloads of a release, on loopback, and Krew's manifest of them.
struct Release {
    folder: tempfile::TempDir,
}

impl Release {
    /// Makes the manifest of the archives as they should be, and serves those that are given, by architecture.
    fn new(served: [Vec<u8>; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archives = ARCHITECTURES.map(|name| folder.path().join(format!("sockeye-linux-{name}.tar.gz")));
        for archive in &archives {
            fs::write(archive, &*ARCHIVE).unwrap();
        }
        let names = archives.each_ref().map(|path| format!("/{}", path.file_name().unwrap().to_str().unwrap()));
        let address = serve(names.into_iter().zip(served).collect());
        let mut manifest = Command::new("/usr/bin/python3");
        manifest.arg(repo().join("deploy/release/krew.py"));
        manifest.args([env!("CARGO_PKG_VERSION"), &format!("http://{address}")]).args(&archives);
        fs::write(folder.path().join("sockeye.yaml"), stdout(&mut manifest)).unwrap();
        Self { folder }
    }

    fn manifest(&self) -> PathBuf {
        self.folder.path().join("sockeye.yaml")
    }

    /// Replaces text in the manifest, which is there.
    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.manifest()).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(self.manifest(), text.replace(from, to)).unwrap();
    }

    /// Runs the validator, which installs each platform's archive.
    fn validate(&self) -> Result<(), String> {
        let mut command = Command::new("validate-krew-manifest");
        let Output { status, stderr, .. } = command.arg("-manifest").arg(self.manifest()).output().unwrap();
        if status.success() { Ok(()) } else { Err(String::from_utf8(stderr).unwrap()) }
    }
}

/// Serves files over HTTP, by path, until the test's process ends. Returns its address.
fn serve(files: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let files = Arc::new(files);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let files = Arc::clone(&files);
            thread::spawn(move || answer(&stream.unwrap(), &files));
        }
    });
    address
}

/// Answers one request, and closes the connection.
fn answer(mut stream: &TcpStream, files: &BTreeMap<String, Vec<u8>>) {
    let head: Vec<String> =
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let (status, body) = files.get(path).map_or(("404 Not Found", [].as_slice()), |body| ("200 OK", body));
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // Krew may have gone: that is what its own tests are about.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
}

#[test]
fn krews_validator_installs_the_plugin_for_each_platform() {
    Release::new([ARCHIVE.clone(), ARCHIVE.clone()]).validate().unwrap();
}

#[test]
fn the_plugin_is_a_command_of_kubectl() {
    let release = Release::new([ARCHIVE.clone(), ARCHIVE.clone()]);
    let root = release.folder.path().join("krew");
    let mut path = OsString::from(root.join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("PATH", &path).env("KREW_ROOT", &root).env("KREW_NO_UPGRADE_CHECK", "1");
        String::from_utf8(stdout(&mut command)).unwrap()
    };
    kubectl(&["krew", "install", "--manifest", release.manifest().to_str().unwrap()]);
    assert_eq!(kubectl(&["sockeye", "--version"]), format!("sockeye {}\n", env!("CARGO_PKG_VERSION")));
    assert!(kubectl(&["krew", "list"]).contains("sockeye"));
    kubectl(&["krew", "uninstall", "sockeye"]);
    assert!(!root.join("bin/kubectl-sockeye").exists());
}

#[test]
fn an_archive_that_was_altered_is_not_installed() {
    let mut altered = ARCHIVE.clone();
    *altered.last_mut().unwrap() ^= 1;
    let error = Release::new([ARCHIVE.clone(), altered]).validate().unwrap_err();
    assert!(error.contains("checksum does not match"), "{error}");
}

#[test]
fn the_validator_refuses_what_a_manifest_must_not_be() {
    let release = Release::new([ARCHIVE.clone(), ARCHIVE.clone()]);
    release.edit("arch: arm64", "arch: amd64");
    let error = release.validate().unwrap_err();
    assert!(error.contains("overlapping platform selectors"), "{error}");
}
