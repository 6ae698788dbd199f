//! `ringmail explain`: what happens to a connection, and which resource decides it.
//!
//! The same policy crate as in the proxies decides from the same files; no proxy is asked. The client's side chooses the route,
//! the destination's side the mode and the authorization.
//!
//! - `settings`: what the proxy's settings file says about the mesh and about its own pod.
//! - `policy_files`: the texts of the policy directory.
//! - `party`: who connects, and who answers.
//! - `decide`: the decisions, in the order in which they are made.
//! - `show`: the table.

mod decide;
mod party;
mod policy_files;
mod settings;
mod show;

use anyhow::{Context, Result, bail};
use ringmail_policy::Resources;

use crate::Answer;
use crate::command_line::ExplainArgs;
use crate::output::{self, Format};
use decide::Question;
pub(crate) use party::Party;
use party::World;
use settings::MeshSettings;

/// Faults of the policies that are listed: more than a screen helps nobody.
const FAULTS_SHOWN: usize = 20;

/// Reads, decides, prints.
pub(crate) fn run(args: &ExplainArgs) -> Result<Answer> {
    let mesh = MeshSettings::read(&args.config, args.policy_dir.as_deref())?;
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
    let world = World::new(&resources, &mesh);
    let from = world.client(&args.from).context("--from")?;
    let to = world.destination(args.to);
    let explanation = decide::explain(&Question { mesh: &mesh, resources: &resources, from, to });
    match args.output {
        Format::Json => output::print_json(&explanation)?,
        Format::Table => output::print(&show::render(&explanation, output::colour()))?,
    }
    Ok(if explanation.outcome.is_served() { Answer::Yes } else { Answer::No })
}

#[cfg(test)]
mod tests;
