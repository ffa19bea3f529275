//! The chart's proxy and certificates: a registry with an authority of its own, behind a proxy, as the operator's
//! arguments in the rendered chart say.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread::spawn,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{condition, repo, run};

use crate::{REPOSITORY, World, apply};

/// The registry's name, which nothing resolves.
const NAME: &str = "registry.example";

/// A proxy that opens tunnels to one registry, whatever its clients ask for.
struct Tunnel {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    fn start(registry: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&asked);
        spawn(move || {
            for client in listener.incoming().flatten() {
                let (registry, asked) = (registry.clone(), Arc::clone(&all));
                spawn(move || drop(tunnel(client, &registry, &asked)));
            }
        });
        Ok(Self { url, asked })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, registry: &str, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    // A client sends nothing more before it is answered.
    let mut lines = BufReader::new(client.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    asked.lock().unwrap().push(request);
    let mut server = TcpStream::connect(registry)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    spawn(move || io::copy(&mut from_server, &mut to_client));
    io::copy(&mut client, &mut server).map(drop)
}

/// Writes an authority's certificate, ca.crt, and the certificate and key of a registry.
fn write_certificates(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let script = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=authority -days 2 -out ca.crt
        openssl req -newkey rsa:2048 -nodes -keyout server.key -subj /CN={NAME} -out server.csr
        printf 'subjectAltName=DNS:{NAME}\\nextendedKeyUsage=serverAuth\\n' >extensions
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt \
            -extfile extensions"
    );
    run(Command::new("sh").args(["-euc", &script]).current_dir(folder)).map(drop)
}

/// Returns the operator's arguments about registries in the chart with these values. What the chart mounts from the
/// ConfigMap `authorities` is in a folder.
fn rendered_args(values: &Value, folder: &Path) -> Result<Vec<String>> {
    let (chart, file) = (repo().join("deploy/chart"), folder.join("values.json"));
    fs::write(&file, values.to_string())?;
    let template = ["--show-only", "templates/operator/deployment.yaml", "--values"];
    let rendered = run(Command::new("helm").args(["template", "sockeye"]).arg(&chart).args(template).arg(&file))?;
    let deployment: Value = serde_saphyr::from_str(&rendered)?;
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let volume = items(&pod["volumes"]).into_iter().find(|volume| volume["configMap"]["name"] == "authorities");
    let mounts = items(&container["volumeMounts"]);
    let mount = mounts.iter().find(|mount| volume.as_ref().is_some_and(|volume| mount["name"] == volume["name"]));
    let mounted = mount.and_then(|mount| mount["mountPath"].as_str()).unwrap_or("/nonexistent");
    let args = items(&container["args"]).into_iter().filter_map(|arg| Some(arg.as_str()?.to_owned()));
    let args =
        args.filter(|arg| ["--image-proxy", "--image-no-proxy", "--image-ca"].iter().any(|of| arg.starts_with(of)));
    Ok(args.map(|arg| arg.replace(mounted, &folder.display().to_string())).collect())
}

impl World {
    async fn start_as_the_chart_says(&mut self, images: Value, folder: &Path) -> Result<()> {
        let args = rendered_args(&json!({"images": images}), folder)?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.start(&args).await
    }

    fn fails_to_pull(&self, name: &str) -> Result<String> {
        let found = self.accepted(name, "ImagePullFailed")?;
        let message = condition(&found, "Accepted").context("no Accepted")?["message"].to_string();
        ensure!(message.contains(NAME), "{message}");
        Ok(message)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_reached_through_the_charts_proxy_and_trusted_by_its_authorities() -> Result<()> {
    let mut world = World::new().await?;
    world.registry.push(REPOSITORY, "v1", TCP_EVENTS_BTF)?;
    let folder = world.work.path().join("authority");
    write_certificates(&folder)?;
    let with_tls = world.registry.with_tls(&folder)?;
    let tunnel = Tunnel::start(with_tls.host.clone())?;
    let image = json!({"image": {"reference": format!("{NAME}/{REPOSITORY}:v1")}});

    let proxy = || json!({"proxy": tunnel.url, "noProxy": "other.example"});
    world.start_as_the_chart_says(proxy(), &folder).await?;
    apply("untrusted", &image, &json!({}))?;
    let message = world.fails_to_pull("untrusted")?;
    ensure!(message.contains("certificate"), "{message}");
    ensure!(
        tunnel.asked().iter().all(|asked| *asked == format!("CONNECT {NAME}:443 HTTP/1.1")),
        "{:?}",
        tunnel.asked()
    );

    let mut trusting = proxy();
    trusting["caConfigMap"] = json!("authorities");
    world.start_as_the_chart_says(trusting.clone(), &folder).await?;
    apply("trusted", &image, &json!({}))?;
    world.accepted("trusted", "Dispatched")?;

    // What is not to be reached by the proxy is not.
    let before = tunnel.asked().len();
    trusting["noProxy"] = json!(NAME);
    world.start_as_the_chart_says(trusting, &folder).await?;
    apply("direct", &json!({"image": {"reference": format!("{NAME}/other/guard:v1")}}), &json!({}))?;
    world.fails_to_pull("direct")?;
    ensure!(tunnel.asked().len() == before, "{:?}", tunnel.asked());
    Ok(())
}
