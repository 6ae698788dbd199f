//! `ringmail inject`: puts sidecars into manifests, by the same code as the webhook.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use ringmail_control::inject::manifest::{Decision, Manifest, Surroundings, inject_manifest};
use ringmail_control::inject::{Cluster, InjectConfig, Namespace};
use serde::Deserialize;

use crate::Answer;
use crate::cluster::manifests_in;

/// More than any manifest; a stream without an end must not fill the memory.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Args, Debug)]
pub(crate) struct InjectArgs {
    /// Manifests, directories of them, or - for standard input; several are one stream
    #[arg(short, long = "file", value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    /// The namespace of workloads that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Labels of that namespace. Without, a namespace that is not in the stream is taken to ask for sidecars
    #[arg(long, value_name = "NAME=VALUE,...", value_delimiter = ',', value_parser = pair)]
    namespace_labels: Vec<(String, String)>,
    /// Annotation of that namespace; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    namespace_annotation: Vec<(String, String)>,
    /// The mesh's settings as ringmail-control has them (key config.yaml of the ConfigMap ringmail)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The proxy's image, instead of the settings'
    #[arg(long, value_name = "IMAGE")]
    proxy_image: Option<String>,
    /// The image of ringmail-init, instead of the settings'
    #[arg(long, value_name = "IMAGE")]
    init_image: Option<String>,
    /// The cluster is older than Kubernetes 1.29: sidecars are ordinary containers
    #[arg(long)]
    no_native_sidecars: bool,
}

/// The part of control's file that this command needs.
#[derive(Default, Deserialize)]
struct ControlFile {
    #[serde(default)]
    injection: InjectConfig,
}

pub(crate) fn run(args: &InjectArgs) -> anyhow::Result<Answer> {
    let config = config(args)?;
    let mut manifests = Vec::new();
    for file in &files(&args.files)? {
        let text = read(file)?;
        let manifest = inject_manifest(&text, &surroundings(args), &config).with_context(|| name_of(file))?;
        for place in &manifest.no_objects {
            let expected = "expected a mapping with apiVersion and kind";
            eprintln!("{}: {place}: no object of Kubernetes: {expected}; left as it is", name_of(file));
        }
        manifests.push(manifest);
    }
    // Half a manifest would be applied by whoever reads the pipe: either all of it is written or nothing.
    if manifests.iter().map(tell).fold(false, |refused, one| refused | one) {
        return Ok(Answer::No);
    }
    let mut out = io::stdout().lock();
    for (place, manifest) in manifests.iter().enumerate() {
        if place > 0 && !manifest.text.starts_with("---") {
            out.write_all(b"---\n").context("standard output")?;
        }
        out.write_all(manifest.text.as_bytes()).context("standard output")?;
        let is_last = place + 1 == manifests.len();
        if !is_last && !manifest.text.ends_with('\n') {
            out.write_all(b"\n").context("standard output")?;
        }
    }
    out.flush().context("standard output")?;
    Ok(Answer::Yes)
}

/// Says what was decided; whether something was refused.
fn tell(manifest: &Manifest) -> bool {
    let mut is_refused = false;
    for workload in &manifest.workloads {
        let name = &workload.name;
        for warning in &workload.unread {
            eprintln!("{name}: warning: {warning}");
        }
        match &workload.decision {
            Decision::Injected(warnings) => {
                eprintln!("{name}: injected");
                for warning in warnings {
                    eprintln!("{name}: warning: {warning}");
                }
            }
            Decision::Refused(refusal) => {
                is_refused = true;
                eprintln!("{name}: refused: {refusal}");
            }
            Decision::Skipped(skip) => eprintln!("{name}: left as it is: {skip}"),
        }
    }
    is_refused
}

fn surroundings(args: &InjectArgs) -> Surroundings {
    let labels: BTreeMap<_, _> = args.namespace_labels.iter().cloned().collect();
    let annotations: BTreeMap<_, _> = args.namespace_annotation.iter().cloned().collect();
    let is_given = !labels.is_empty() || !annotations.is_empty();
    let namespace = Namespace { name: args.namespace.clone(), labels, annotations };
    Surroundings {
        namespace: args.namespace.clone(),
        namespaces: if is_given { vec![namespace] } else { Vec::new() },
        cluster: Cluster { native_sidecars: !args.no_native_sidecars, ..Cluster::default() },
    }
}

fn config(args: &InjectArgs) -> anyhow::Result<InjectConfig> {
    let mut config = match &args.config {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            // The reader's error says what it rests on itself.
            let file: ControlFile = serde_saphyr::from_str(&text)
                .map_err(|error| anyhow::Error::msg(error.to_string()))
                .with_context(|| path.display().to_string())?;
            file.injection
        }
        None => InjectConfig::default(),
    };
    if let Some(image) = &args.proxy_image {
        config.proxy_image.clone_from(image);
    }
    if let Some(image) = &args.init_image {
        config.init_image.clone_from(image);
    }
    Ok(config)
}

/// Each directory's own in its place.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let own = manifests_in(path)?;
        if own.is_empty() {
            bail!(
                "{}: expected manifests (*.yaml, *.yml, *.json), and the directory has none",
                path.display()
            );
        }
        files.extend(own);
    }
    Ok(files)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name_of(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let (mut text, name) = (String::new(), name_of(path));
    let bytes = if is_stdin(path) {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_string(&mut text)
    } else {
        let file = fs::File::open(path).with_context(|| name.clone())?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text)
    };
    if bytes.with_context(|| name.clone())? as u64 > MAX_BYTES {
        bail!("{name}: more than {MAX_BYTES} bytes");
    }
    Ok(text)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("{text:?}: expected name=value")),
    }
}
