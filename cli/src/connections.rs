//! `ringmail connections`: who talks to whom through one proxy, how it is protected, and what decided it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::command_line::AdminArgs;
use crate::output::{self, Format};
use crate::table::{Align, Cell, Table, Tone};
use crate::{Answer, admin, units};

/// Where a proxy tells them.
pub(crate) const PATH: &str = "/connections";

/// What the proxy calls mutual TLS with a verified identity.
const MUTUAL_TLS: &str = "mutual_tls";
/// What it calls a connection that is not decided yet.
const UNDECIDED: &str = "undecided";

/// One live connection, as a proxy tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Connection {
    pub(crate) direction: String,
    pub(crate) source: String,
    pub(crate) destination: Option<String>,
    pub(crate) protection: String,
    pub(crate) peer_identity: Option<String>,
    pub(crate) decided_by: Option<String>,
    pub(crate) age_ms: u64,
    /// From the server to the client.
    pub(crate) bytes_sent: u64,
    /// From the client to the server.
    pub(crate) bytes_received: u64,
}

impl Connection {
    /// Whether the leg between the pods is mutual TLS with a verified peer.
    pub(crate) fn is_mutual_tls(&self) -> bool {
        self.protection == MUTUAL_TLS && self.peer_identity.is_some()
    }

    /// Whether it is known yet how the leg is protected.
    pub(crate) fn is_decided(&self) -> bool {
        self.protection != UNDECIDED
    }

    fn tone(&self) -> Tone {
        match (self.is_mutual_tls(), self.is_decided()) {
            (true, _) => Tone::Good,
            (false, true) => Tone::Bad,
            (false, false) => Tone::Quiet,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Document {
    connections: Vec<Connection>,
}

/// Reads the proxy's answer.
pub(crate) fn parse(answer: Value) -> Result<Vec<Connection>> {
    let document: Document = serde_json::from_value(answer).context("not the connections of a proxy")?;
    Ok(document.connections)
}

/// Asks, prints.
pub(crate) fn run(args: &AdminArgs) -> Result<Answer> {
    let answer: Value = admin::get_json(&args.address, PATH)?;
    match args.output {
        Format::Json => output::print_json(&answer)?,
        Format::Table => {
            let connections = parse(answer).with_context(|| args.address.clone())?;
            output::print(&render(&connections, output::colour()))?;
        }
    }
    Ok(Answer::Yes)
}

fn render(connections: &[Connection], colour: bool) -> String {
    if connections.is_empty() {
        return "no connection is open\n".to_owned();
    }
    let mut table = Table::new(&[
        ("DIRECTION", Align::Left),
        ("SOURCE", Align::Left),
        ("DESTINATION", Align::Left),
        ("PROTECTION", Align::Left),
        ("TO SERVER", Align::Right),
        ("TO CLIENT", Align::Right),
        ("AGE", Align::Right),
        ("PEER", Align::Left),
        ("DECIDED BY", Align::Left),
    ]);
    for connection in connections {
        table.row([
            (&*connection.direction).into(),
            (&*connection.source).into(),
            or_dash(connection.destination.as_deref()),
            Cell::new(&*connection.protection, connection.tone()),
            units::bytes(connection.bytes_received).into(),
            units::bytes(connection.bytes_sent).into(),
            units::time(Duration::from_millis(connection.age_ms)).into(),
            or_dash(connection.peer_identity.as_deref()),
            or_dash(connection.decided_by.as_deref()),
        ]);
    }
    let protected = connections.iter().filter(|connection| connection.is_mutual_tls()).count();
    format!("{}\n{} connections, {protected} of them mutual TLS\n", table.render(colour), connections.len())
}

fn or_dash(text: Option<&str>) -> Cell {
    text.map_or_else(|| Cell::new("-", Tone::Quiet), Cell::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the proxy writes it, with fields that are not shown.
    fn answer() -> Value {
        json!({"connections": [
            {
                "id": 7, "direction": "inbound", "established": true, "source": "10.77.0.1:33000",
                "destination": "10.77.0.2:47500", "protection": "mutual_tls",
                "peer_identity": "spiffe://cluster.local/ns/ignite/sa/ignite", "peer_serial": "01",
                "decided_by": "no AuthorizationPolicy selects the pod", "age_ms": 65_000,
                "bytes_sent": 2048, "bytes_received": 100,
            },
            {
                "id": 8, "direction": "inbound", "established": false, "source": "10.77.0.9:33001",
                "destination": null, "protection": "undecided", "peer_identity": null,
                "decided_by": null, "age_ms": 5, "bytes_sent": 0, "bytes_received": 0,
            },
        ]})
    }

    #[test]
    fn each_connection_is_a_row_and_the_last_line_counts() {
        let text = render(&parse(answer()).unwrap(), false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "inbound    10.77.0.1:33000  10.77.0.2:47500  mutual_tls      100 B    2.0 KiB  1m 5s  \
             spiffe://cluster.local/ns/ignite/sa/ignite  no AuthorizationPolicy selects the pod"
        );
        assert!(lines[2].starts_with("inbound    10.77.0.9:33001  -                undecided"), "{text}");
        assert_eq!(lines.last(), Some(&"2 connections, 1 of them mutual TLS"));
    }

    #[test]
    fn no_connection_is_said_in_words() {
        assert_eq!(render(&parse(json!({"connections": []})).unwrap(), false), "no connection is open\n");
    }

    #[test]
    fn another_document_is_refused() {
        let error = format!("{:#}", parse(json!({"certificates": []})).unwrap_err());
        assert!(error.contains("not the connections of a proxy") && error.contains("connections"), "{error}");
    }

    #[test]
    fn mutual_tls_without_a_named_peer_does_not_count_as_protected() {
        let mut connections = parse(answer()).unwrap();
        connections[0].peer_identity = None;
        assert!(!connections[0].is_mutual_tls());
        assert!(render(&connections, false).ends_with("0 of them mutual TLS\n"));
    }
}
