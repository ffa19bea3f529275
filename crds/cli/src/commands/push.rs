//! `push`: an ELF object to a registry, as an image that BpfPrograms can name. And `pull`, for `diff`.

use std::{collections::BTreeMap, env, fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Map, Value};
use sockeye_crds::names;
use sockeye_ebpf::Object;
use sockeye_image::{Architecture, Reference};
use sockeye_registry::{Client, Credentials, Packed, RegistrySettings, Settings};

use super::print;
use crate::source::elf;

/// The arguments of `push`.
#[derive(clap::Args)]
pub struct Args {
    /// The ELF object, or - for standard input
    file: PathBuf,
    /// The image: REGISTRY/REPOSITORY[:TAG]
    image: String,
    /// The format of the image
    #[arg(long, value_enum, default_value = "artifact")]
    format: ImageFormat,
    /// Speak plain HTTP to the registry
    #[arg(long)]
    plain_http: bool,
    /// A file of certificates, in PEM, of authorities to trust beside the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A host, HOST or HOST:PORT, that may be shown the registry's credentials for a token; can be given several times
    #[arg(long, value_name = "HOST")]
    token_realm: Vec<String>,
}

/// The formats of images that sockeye makes. docs/images.md describes them.
#[derive(Clone, Copy, ValueEnum)]
enum ImageFormat {
    /// An artifact of sockeye's own, as `oras push` makes it
    Artifact,
    /// A container image as bpfman's specification has it
    Bpfman,
}

/// Runs the verb.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let bytes = elf::read(&args.file, names::MAX_OBJECT_BYTES)?;
    let object = Object::read(&bytes).context("it is no ELF object that sockeye reads")?;
    let programs: Vec<(&str, &str)> = object.programs().collect();
    anyhow::ensure!(!programs.is_empty(), "the object has no program");
    let reference: Reference = args.image.parse()?;
    anyhow::ensure!(reference.digest.is_none(), "{reference} has a digest: push to a tag, and the digest is printed");
    let name = args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = if name == "-" || name.is_empty() { "object.bpf.o".to_owned() } else { name };
    let packed = match args.format {
        ImageFormat::Artifact => Packed::artifact(&bytes, &name),
        ImageFormat::Bpfman => Packed::bpfman(&bytes, &name, &labels(&object, &programs)?),
    };
    let authorities = match &args.ca_file {
        Some(path) => fs::read(path).with_context(|| path.display().to_string())?,
        None => Vec::new(),
    };
    let own = RegistrySettings { insecure: args.plain_http, realm_hosts: realms(&reference, args.token_realm) };
    let registries = [(reference.registry.clone(), own)].into();
    let settings = Settings { registries, authorities, ..Settings::default() };
    let digest = client(settings)?.push(&reference, &packed).await?;
    print::text(&format!("{}@{digest}\n", reference.name()))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the labels of bpfman: the programs with their types, and the maps with theirs, as JSON.
fn labels(object: &Object<'_>, programs: &[(&str, &str)]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = object.select(programs.iter().map(|(name, _)| *name), object.maps())?;
    let info = object.info(&mut all);
    let types = programs.iter().map(|(name, section)| (*name, section.split('/').next().unwrap_or_default()));
    let types: BTreeMap<&str, &str> = types.collect();
    let maps: BTreeMap<&str, String> = info.maps.iter().map(|map| (&*map.name, snake(&map.map_type))).collect();
    let labels =
        [("io.ebpf.programs", serde_json::to_string(&types)?), ("io.ebpf.maps", serde_json::to_string(&maps)?)];
    Ok(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Returns a name of the API's as bpfman writes it: `LruHash` is `lru_hash`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Pulls the object of an image that is the same for all architectures.
pub async fn pull(image: &str) -> anyhow::Result<Vec<u8>> {
    let reference: Reference = image.parse()?;
    let own = RegistrySettings { insecure: false, realm_hosts: realms(&reference, Vec::new()) };
    let registries = [(reference.registry.clone(), own)].into();
    let client = client(Settings { registries, ..Settings::default() })?;
    let digest = client.resolve(&reference).await?;
    let images = client.pull(&reference, &digest).await?;
    let any = images.get(&Architecture::any());
    let image = any.or_else(|| images.values().next()).context("the image has no object")?;
    anyhow::ensure!(
        images.values().all(|other| other.object == image.object),
        "{reference} has other objects for other architectures, which diff does not compare"
    );
    Ok(image.object.clone())
}

/// The hosts that may be shown credentials for a token. Docker Hub's is known.
fn realms(reference: &Reference, mut realms: Vec<String>) -> Vec<String> {
    if reference.registry == "docker.io" {
        realms.push("auth.docker.io".to_owned());
    }
    realms
}

fn client(settings: Settings) -> anyhow::Result<Client> {
    let client = Client::new(settings)?;
    let config = env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".docker")));
    let Some(path) = config.map(|folder| folder.join("config.json")).filter(|path| path.exists()) else {
        return Ok(client);
    };
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(match credentials(&text).with_context(|| path.display().to_string())? {
        Some(credentials) => client.with_credentials(credentials),
        None => client,
    })
}

/// Reads the configuration of docker. One that names credential helpers alone has no secrets that could be used.
fn credentials(text: &[u8]) -> anyhow::Result<Option<Credentials>> {
    let config: Map<String, Value> = serde_json::from_slice(text).context("it is no configuration of docker")?;
    if !config.contains_key("auths") {
        return Ok(None);
    }
    match Credentials::from_docker_config(text) {
        Err(sockeye_registry::Error::Credentials(problem)) => anyhow::bail!("it {problem}"),
        read => Ok(Some(read?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_are_damaged_are_not_left_out_silently() {
        assert!(credentials(br#"{"credsStore": "pass"}"#).unwrap().is_none());
        assert!(credentials(br#"{"auths": {"registry.example": {"auth": "dTpw"}}}"#).unwrap().is_some());
        for (text, problem) in [
            (&b"{"[..], "no configuration of docker"),
            (br#"{"auths": []}"#, "no .dockerconfigjson"),
            (br#"{"auths": {"registry.example": {"auth": "%"}}}"#, "registry.example"),
        ] {
            let error = credentials(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
