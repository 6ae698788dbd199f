//! `ringmail demo`: a real Ignite ring, first plain, then inside the mesh, and what anyone on the network sees of each.
//!
//! Everything happens in network namespaces that are gone afterwards.
//!
//! - `guard`: the outer process, which cleans up whatever happens to the inner one.
//! - `progress`: one line per step.
//! - `stage`: the namespaces, the look at the wire, the death of a node: the same for both rings.
//! - `plain`, `meshed`: the two rings.
//! - `live`: who talks to whom, asked of the proxies.

mod guard;
mod live;
mod meshed;
mod plain;
mod progress;
mod stage;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use nix::unistd::Uid;

use crate::command_line::DemoArgs;
use crate::table::Tone;
use crate::{Answer, output, units};
use progress::Progress;
use stage::Stage;

/// How many steps the two rings and what is around them have; the progress says when it is wrong.
const STEPS: usize = 14;

/// Runs the outer process, or the inner one.
pub(crate) fn run(args: &DemoArgs) -> Result<Answer> {
    ensure!(
        Uid::effective().is_root(),
        "the demo makes network namespaces and rules for iptables, which needs root: make demo asks sudo for it"
    );
    match &args.inside {
        Some(folder) => perform(args, folder),
        None => guard::run(args),
    }
}

/// The whole performance, in a folder that the outer process removes.
fn perform(args: &DemoArgs, folder: &Path) -> Result<Answer> {
    guard::follow_outer()?;
    let begin = Instant::now();
    let mut progress = Progress::new(STEPS);
    let stage = Stage::prepare(args.ignite, folder, &mut progress)?;
    progress.title("the ring without the mesh")?;
    let plain = plain::run(&stage, &mut progress)?;
    progress.title("the same ring inside the mesh")?;
    let meshed = meshed::run(&stage, &plain, &mut progress)?;
    progress.title("the end")?;
    stage.clear(&mut progress)?;
    progress.finish()?;
    let text = format!(
        "demo: all of it held: {} streams were TLS 1.3 and nothing else, the ring went on {} after a node was killed, \
         {} keys counted, none lost ({})\n",
        meshed.streams,
        units::time(meshed.healing.whole),
        meshed.keys,
        units::time(begin.elapsed())
    );
    output::print(&format!("\n{}", Tone::Good.paint(&text, output::colour())))?;
    Ok(Answer::Yes)
}
