//! The description as a person reads it.

use crate::table::{Align, Cell, Table, Tone};

use super::Description;
use super::injection::SidecarState;

pub(super) fn render(of: &Description, colour: bool) -> String {
    let mut text = head(of).render(colour);
    text.push('\n');
    text.push_str(&ports(of).render(colour));
    section(&mut text, "authorization policies", policies(of), colour);
    section(&mut text, "destination rules", rules(of), colour);
    for (title, tone, lines) in
        [("warnings", Tone::Bad, &of.warnings), ("could not be seen", Tone::Quiet, &of.unseen)]
    {
        if !lines.is_empty() {
            text.push_str(&format!("\n{}:\n", tone.paint(title, colour)));
            lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    }
    text
}

fn section(text: &mut String, title: &str, table: Result<Table, &str>, colour: bool) {
    match table {
        Ok(table) => {
            text.push_str(&format!("\n{}:\n", Tone::Quiet.paint(title, colour)));
            text.push_str(&table.render(colour));
        }
        Err(none) => text.push_str(&format!("\n{}: {none}\n", Tone::Quiet.paint(title, colour))),
    }
}

fn head(of: &Description) -> Table {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let mut row = |title: &str, cell: Cell| table.row([Cell::new(title, Tone::Quiet), cell]);
    row("pod", format!("{}/{}", of.namespace, of.name).into());
    let tone = if of.ready { Tone::Good } else { Tone::Bad };
    let ready = if of.ready { "ready" } else { "not ready" };
    row("status", Cell::new(format!("{}, {ready}", of.phase), tone));
    let node = of.node.as_deref().unwrap_or("no node yet");
    let addresses = if of.addresses.is_empty() { "none yet".to_owned() } else { of.addresses.join(", ") };
    row("addresses", format!("{addresses} on {node}").into());
    let (word, tone) = if of.injection.injected { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
    row("injected", Cell::new(format!("{word}: {}", of.injection.why), tone));
    if let Some(sidecar) = &of.sidecar {
        row("sidecar", sidecar_cell(sidecar));
        row(
            "identity",
            of.identity.as_deref().unwrap_or("none: its service account has no valid form").into(),
        );
        let capture = match of.capture_exclusions.is_empty() {
            true => "all TCP, in both directions".to_owned(),
            false => format!("in part: {}", of.capture_exclusions.join(" ")),
        };
        row("capture", capture.into());
    }
    let services: Vec<_> =
        of.services.iter().map(|service| format!("{} ({})", service.name, service.kind)).collect();
    let services = if services.is_empty() { "none selects it".to_owned() } else { services.join(", ") };
    row("services", services.into());
    table
}

fn sidecar_cell(sidecar: &SidecarState) -> Cell {
    let SidecarState { container, image, version, .. } = sidecar;
    let kind = if sidecar.native { "native" } else { "ordinary" };
    let ready = if sidecar.ready { "ready" } else { "not ready" };
    let restarts = match sidecar.restarts {
        0 => String::new(),
        1 => ", 1 restart".to_owned(),
        many => format!(", {many} restarts"),
    };
    let tone = if sidecar.ready { Tone::Plain } else { Tone::Bad };
    Cell::new(format!("{container} ({kind}), {ready}{restarts}, {image}, injected by {version}"), tone)
}

fn ports(of: &Description) -> Table {
    let mut table = Table::new(&[
        ("PORT", Align::Left),
        ("NAME", Align::Left),
        ("MTLS", Align::Left),
        ("DECIDED BY", Align::Left),
        ("SERVICES", Align::Left),
    ]);
    for line in &of.ports {
        let port = match line.port {
            Some(port) => port.to_string().into(),
            None => Cell::new("others", Tone::Quiet),
        };
        let mode = match line.mode {
            Some("STRICT") => Cell::new("STRICT", Tone::Good),
            Some(mode) => mode.into(),
            None => Cell::new("none", Tone::Bad),
        };
        table.row([
            port,
            (&*line.name).into(),
            mode,
            (&*line.decided_by).into(),
            line.services.join(", ").into(),
        ]);
    }
    table
}

fn policies(of: &Description) -> Result<Table, &'static str> {
    if of.authorization_policies.is_empty() {
        return Err(match of.sidecar {
            Some(_) => "none selects it: whoever the mode lets in may connect",
            None => "none is enforced, for want of a sidecar",
        });
    }
    let mut table = Table::new(&[("", Align::Left); 3]);
    for line in &of.authorization_policies {
        let rules = match (line.rules, line.action) {
            (0, "ALLOW") => "no rule in force: nobody matches".to_owned(),
            (0, _) => "no rule in force: no effect".to_owned(),
            (1, _) => "1 rule".to_owned(),
            (many, _) => format!("{many} rules"),
        };
        table.row([format!("  {}", line.name).into(), line.action.into(), rules.into()]);
    }
    Ok(table)
}

fn rules(of: &Description) -> Result<Table, &'static str> {
    if of.destination_rules.is_empty() {
        return Err("none names its Services: clients choose by what they know of it");
    }
    let mut table = Table::new(&[("", Align::Left); 3]);
    for line in &of.destination_rules {
        let tls = if line.tls.is_empty() { "says nothing of TLS" } else { &*line.tls };
        table.row([format!("  {}", line.name).into(), (&*line.host).into(), tls.into()]);
    }
    Ok(table)
}
