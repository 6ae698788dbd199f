//! `/connections`: every connection that is open now, with all that is known of it.

use serde_json::{Value, json};

use super::{State, certs::system_time};
use crate::record::Live;

pub(super) fn answer(state: &State) -> Value {
    let mut live = state.read_ledgers().live;
    live.sort_unstable_by_key(|live| live.id);
    json!({ "connections": live.iter().map(|live| connection(live)).collect::<Vec<_>>() })
}

fn connection(live: &Live) -> Value {
    let workload = live.peer_workload.get();
    json!({
        "id": live.id,
        "direction": live.direction.as_str(),
        "established": live.established.get().is_some(),
        "source": live.source.to_string(),
        "destination": live.destination.get().map(ToString::to_string),
        "protection": live.protection().as_str(),
        "peer_identity": live.peer_identity.get().map(ToString::to_string),
        "peer_serial": live.peer_serial.get(),
        "peer_workload": workload.map(|workload| format!("{}/{}", workload.namespace, workload.name)),
        "own_identity": live.own_identity.get().map(ToString::to_string),
        "own_serial": live.own_serial.get(),
        "decided_by": live.decided_by.get().map(|origin| &**origin),
        "accepted_at": system_time(live.accepted_at),
        "age_ms": milliseconds(live.age()),
        "handshake_ms": live.handshake.get().map(|took| took.as_secs_f64() * 1000.0),
        "bytes_sent": live.bytes.to_downstream(),
        "bytes_received": live.bytes.from_downstream(),
    })
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
