//! The operator's process, with the rights that the chart gives it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context as _, Result};
use kube::{Client, config::Kubeconfig};
use serde_json::json;
use sockeye_tests::identity::{RELEASE, token};

use crate::process::{Memory, end, memory};

/// The process; it is killed when this is dropped.
pub struct Operator {
    child: Child,
}

impl Operator {
    /// Starts it.
    pub async fn start(client: &Client, binary: &Path, work: &Path) -> Result<Self> {
        let token = token(client, RELEASE, "sockeye-operator", None).await?;
        // It ends with the bench, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig".as_ref(), "KILL".as_ref(), binary.as_os_str()])
            .env("KUBECONFIG", kubeconfig(&token, work)?)
            .args(["--namespace", RELEASE, "--health-port", "0"])
            .stderr(File::options().append(true).create(true).open(work.join("operator.log"))?)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        Ok(Self { child })
    }

    /// What it holds.
    pub fn memory(&self) -> Result<Memory> {
        memory(self.child.id())
    }

    /// Ends it as a node does.
    pub fn stop(mut self) -> Result<()> {
        end(&mut self.child)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KUBECONFIG's server, with that token.
fn kubeconfig(token: &str, work: &Path) -> Result<PathBuf> {
    let mut config = Kubeconfig::read()?;
    for user in &mut config.auth_infos {
        user.auth_info = Some(serde_json::from_value(json!({"token": token}))?);
    }
    let path = work.join("operator.kubeconfig");
    // JSON is YAML.
    fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(path)
}
