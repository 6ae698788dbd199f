//! `ringmail explain`: what happens to a connection, and which resource decides it.
//!
//! The same policy crate as in the proxies decides, from the objects of a cluster or from a proxy's files; no proxy is
//! asked. The client's side chooses the route, the destination's side the mode and the authorization.
//!
//! - `settings`, `policy_files`: what the proxy's settings file says, and the texts of its policy directory.
//! - `party`: who connects, and who answers; found by `from_files` or `from_cluster`.
//! - `decide`: the decisions, in the order in which they are made; `explanation`: what they come to.
//! - `show`: the table.

mod decide;
mod explanation;
mod from_cluster;
mod from_files;
mod party;
mod policy_files;
mod settings;
mod show;

use std::path::Path;

use anyhow::{Context, Result, bail};
use ringmail_policy::Resources;

use crate::Answer;
use crate::cluster::{Mesh, Supposed, block_on, connect};
use crate::command_line::ExplainArgs;
use crate::output::{self, Format};
use decide::Question;
use explanation::Explanation;
use from_cluster::Cluster;
use from_files::Files;
use party::World;
pub(crate) use party::{Party, Target};
use settings::MeshSettings;

/// Faults of the policies that are listed: more than a screen helps nobody.
const FAULTS_SHOWN: usize = 20;

/// Reads, decides, prints.
pub(crate) fn run(args: &ExplainArgs) -> Result<Answer> {
    let explanation = match &args.config {
        Some(config) => from_files(args, config)?,
        None => block_on(from_cluster(args))?,
    };
    match args.output {
        Format::Json => output::print_json(&explanation)?,
        Format::Table => output::print(&show::render(&explanation, output::colour()))?,
    }
    Ok(if explanation.outcome.is_served() { Answer::Yes } else { Answer::No })
}

fn from_files(args: &ExplainArgs, config: &Path) -> Result<Explanation> {
    let mesh = MeshSettings::read(config, args.policy_dir.as_deref())?;
    let texts = policy_files::read(&mesh.policy_dir)?;
    let resources = Resources::parse(texts.iter().map(|text| (text.name.as_str(), text.text.as_str())))
        .or_else(|faults| {
            let lines: Vec<_> = faults.iter().take(FAULTS_SHOWN).map(|fault| format!("  {fault}")).collect();
            let count =
                if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
            bail!(
                "the policies in {} are refused ({count}), and a proxy keeps its last good set:\n{}",
                mesh.policy_dir.display(),
                lines.join("\n")
            )
        })?;
    answer(&Files::new(&resources, &mesh), &args.from, &args.to)
}

async fn from_cluster(args: &ExplainArgs) -> Result<Explanation> {
    let connection = connect(&args.cluster).await?;
    let namespace = args.namespace.as_deref().unwrap_or(&connection.namespace);
    let supposed = Supposed::read(&args.files, namespace)?;
    let mesh = Mesh::read(&connection, &args.cluster.mesh_namespace, &supposed).await?;
    of_mesh(&mesh, &args.from, &args.to)
}

fn of_mesh(mesh: &Mesh, from: &Party, to: &Target) -> Result<Explanation> {
    let explanation = answer(&Cluster::new(mesh), from, to)?;
    Ok(Explanation { supposing: mesh.supposed.clone(), unseen: mesh.unseen.clone(), ..explanation })
}

fn answer(world: &dyn World, from: &Party, to: &Target) -> Result<Explanation> {
    let destination = world.destination(to).context("--to")?;
    let from = world.client(from, Some(destination.to.address.is_ipv4())).context("--from")?;
    Ok(decide::explain(&Question { world, from, destination }))
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
