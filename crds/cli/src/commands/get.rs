//! `get`: resources, as kubectl lists them.

use std::process::ExitCode;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{context::Context, print};
use crate::{
    output::structured,
    source::{Kind, Source},
    view::columns::Columns,
};

/// The arguments of `get`.
#[derive(clap::Args)]
pub struct Args {
    /// programs (which is meant if it is left out), revisions, nodes or details, and the names of some; also KIND/NAME
    #[arg(value_name = "KIND|NAME")]
    words: Vec<String>,
    /// Show managed fields in JSON and YAML
    #[arg(long)]
    show_managed_fields: bool,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let (kind, names) = kind_and_names(&args.words)?;
    let source = context.source().await?;
    let mut objects = objects(&source, kind, &names).await?;
    if context.format.is_table() {
        if objects.is_empty() {
            print::notes(&[format!("there is no {}", kind.name())]);
            return Ok(ExitCode::SUCCESS);
        }
        let table = Columns::of_kind(&kind.name()).table(&objects, Timestamp::now());
        print::text(&table.render(context.format.is_wide(), context.no_headers))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.show_managed_fields {
        objects.iter_mut().for_each(drop_managed_fields);
    }
    let value = match (&*names, objects.len()) {
        ([_], 1) => objects.remove(0),
        _ => structured::list(objects),
    };
    print::structured(context, &value)?;
    Ok(ExitCode::SUCCESS)
}

async fn objects(source: &Source, kind: Kind, names: &[String]) -> anyhow::Result<Vec<Value>> {
    if names.is_empty() {
        return Ok(source.list(kind).await?);
    }
    let mut objects = Vec::with_capacity(names.len());
    for name in names {
        objects.push(source.get(kind, name).await?);
    }
    Ok(objects)
}

/// Returns what the words name. The first may be a kind; each may be `KIND/NAME`, of one kind.
fn kind_and_names(words: &[String]) -> anyhow::Result<(Kind, Vec<String>)> {
    let (mut kind, mut names) = (None, Vec::new());
    for (at, word) in words.iter().enumerate() {
        match word.split_once('/') {
            Some((prefix, name)) => {
                let its = Kind::of_word(prefix);
                let its = its.ok_or_else(|| anyhow::anyhow!("{prefix:?} is no resource of sockeye's"))?;
                anyhow::ensure!(kind.is_none_or(|kind| kind == its), "one kind can be shown at a time");
                kind = Some(its);
                names.push(name.to_owned());
            }
            None => match Kind::of_word(word).filter(|_| at == 0) {
                Some(its) => kind = Some(its),
                None => names.push(word.clone()),
            },
        }
    }
    Ok((kind.unwrap_or(Kind::Program), names))
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_may_be_a_kind() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            kind_and_names(&words).map(|(kind, names)| (kind, names.join(","))).map_err(|error| error.to_string())
        };
        assert_eq!(read(&[]), Ok((Kind::Program, String::new())));
        assert_eq!(read(&["nodes"]), Ok((Kind::Node, String::new())));
        assert_eq!(read(&["sbpf", "nodes"]), Ok((Kind::Program, "nodes".to_owned())));
        assert_eq!(read(&["tcp-rtt", "b"]), Ok((Kind::Program, "tcp-rtt,b".to_owned())));
        assert_eq!(read(&["node/a", "nodes/b"]), Ok((Kind::Node, "a,b".to_owned())));
        assert!(read(&["node/a", "sbpf/b"]).is_err());
        assert!(read(&["pod/a"]).is_err());
    }
}
