//! [`ImageArgs`]: the operator's arguments about registries. IO: reads the file of certificates.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use clap::Args;
use k8s_openapi::jiff::SignedDuration;
use sockeye_image::Limits;
use sockeye_registry::{AnswerLimits, Proxy, RegistrySettings, Settings, Timeouts};

/// A manifest of an image of ours has some KiB. Several are held at a time.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Signatures have 2 to 12 KB.
const MAX_SIGNATURE_BYTES: u64 = 64 << 10;

/// The registries that images are pulled from.
#[derive(Clone, Debug, Args)]
pub struct ImageArgs {
    /// How often a tag is resolved again for a BpfProgram with pullPolicy: Always.
    #[arg(long, default_value = "10m", value_parser = interval)]
    pub image_resolve_interval: Duration,
    /// A registry, host or host:port, that is asked over plain HTTP, secrets included.
    #[arg(long, value_name = "REGISTRY")]
    pub image_insecure_registry: Vec<String>,
    /// A host besides the registry itself that may be sent the registry's credentials for a token.
    #[arg(long, value_name = "REGISTRY=HOST", value_parser = realm)]
    pub image_token_realm: Vec<(String, String)>,
    /// A file with certificates of authorities, in PEM, that are trusted besides the system's.
    #[arg(long, value_name = "FILE")]
    pub image_ca: Option<PathBuf>,
    /// The proxy for HTTPS: http://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub image_proxy: Option<String>,
    /// The hosts that are reached without the proxy, separated by commas.
    #[arg(long, default_value = "")]
    pub image_no_proxy: String,
    /// The folder of the Secrets that BpfPrograms can use: NAME/config.json.
    #[arg(long, value_name = "FOLDER", default_value = "/etc/sockeye/pull-secrets")]
    pub image_pull_secrets: PathBuf,
}

impl Default for ImageArgs {
    fn default() -> Self {
        Self {
            image_resolve_interval: Duration::from_secs(600),
            image_insecure_registry: Vec::new(),
            image_token_realm: Vec::new(),
            image_ca: None,
            image_proxy: None,
            image_no_proxy: String::new(),
            image_pull_secrets: PathBuf::from("/etc/sockeye/pull-secrets"),
        }
    }
}

/// The arguments can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of certificates can't be read.
    #[error("--image-ca {path}: {source}")]
    Authorities {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The client does not take the settings.
    #[error(transparent)]
    Registry(#[from] sockeye_registry::Error),
}

impl ImageArgs {
    /// Returns the settings of the client that pulls.
    pub fn settings(&self) -> Result<Settings, Error> {
        let mut registries: BTreeMap<String, RegistrySettings> = BTreeMap::new();
        for registry in &self.image_insecure_registry {
            registries.entry(registry.to_ascii_lowercase()).or_default().insecure = true;
        }
        for (registry, host) in &self.image_token_realm {
            registries.entry(registry.to_ascii_lowercase()).or_default().realm_hosts.push(host.clone());
        }
        let authorities = self.image_ca.as_ref().map(|path| {
            fs::read(path).map_err(|source| Error::Authorities { path: path.display().to_string(), source })
        });
        let proxy = self.image_proxy.as_ref().map(|url| Proxy::new(url, &self.image_no_proxy));
        Ok(Settings {
            registries,
            authorities: authorities.transpose()?.unwrap_or_default(),
            proxy: proxy.transpose()?,
            limits: Limits { manifest: MAX_MANIFEST_BYTES, ..Limits::default() },
            answers: AnswerLimits { signature: MAX_SIGNATURE_BYTES, ..AnswerLimits::default() },
            timeouts: Timeouts::default(),
            ..Settings::default()
        })
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval: SignedDuration = text.parse().map_err(|error| format!("{error}; write it as 10m or 1h"))?;
    let interval: Duration = interval.try_into().map_err(|_| "it is negative".to_owned())?;
    if interval.is_zero() { Err("it is no time at all".to_owned()) } else { Ok(interval) }
}

fn realm(text: &str) -> Result<(String, String), String> {
    let (registry, host) = text.split_once('=').ok_or("write it as registry.example=auth.example")?;
    // Hosts are compared in small letters.
    Ok((registry.to_owned(), host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_registry_is_put_together() {
        let args = ImageArgs {
            image_insecure_registry: vec!["Registry.example:5000".into()],
            image_token_realm: vec![
                realm("registry.example:5000=Auth.Example").unwrap(),
                realm("other.example=auth.example:8443").unwrap(),
            ],
            ..ImageArgs::default()
        };
        let settings = args.settings().unwrap();
        let of = |registry| settings.of(registry);
        assert!(of("registry.example:5000").insecure && !of("other.example").insecure);
        assert_eq!(of("registry.example:5000").realm_hosts, ["auth.example"]);
        assert_eq!(of("other.example").realm_hosts, ["auth.example:8443"]);
        assert_eq!(of("third.example"), RegistrySettings::default(), "no realm is trusted for another registry");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let missing = ImageArgs { image_ca: Some("/nonexistent/ca.crt".into()), ..ImageArgs::default() };
        assert!(missing.settings().unwrap_err().to_string().starts_with("--image-ca /nonexistent/ca.crt: "));
        assert!(interval("0s").is_err() && interval("-1m").is_err() && interval("often").is_err());
        assert_eq!(interval("90s"), Ok(Duration::from_secs(90)));
    }
}
