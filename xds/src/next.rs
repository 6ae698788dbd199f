//! A later version's schema, for the test that has two versions side by side: every kind of change that one may make.
//!
//! Messages carry fields that this version has not, enums values that it has not, and there is one more type to
//! subscribe to. What is said is put into the messages where they are encoded, and taken out where they are decoded,
//! so that nothing else differs: two encodings after one another are the encoding of one message with the fields of
//! both. Only compiled with the feature `next-schema`.

use prost::Message;

use crate::{
    Resource,
    discovery::{Any, NamedResource},
    ringmail::{Destination, Inbound, Mode, ModeDecision, PortMode},
    security::Authorization,
    workload::{Address, TunnelProtocol, address},
};

/// STRICT, in the word of the later version.
const EXCLUSIVE: i32 = 4;
/// The way to reach a workload of the mesh, in the word of the later version.
const LATER_TUNNEL: i32 = 3;
/// What the new fields say.
const SAID: &str = "said by the next version";

/// The new fields of messages that have had others.
#[derive(Clone, PartialEq, Message)]
struct More {
    #[prost(string, tag = "100")]
    text: String,
    #[prost(uint32, repeated, tag = "101")]
    numbers: Vec<u32>,
}

/// The new type.
#[derive(Clone, PartialEq, Message)]
pub struct Novelty {
    /// What it says.
    #[prost(string, tag = "1")]
    pub text: String,
}

impl Novelty {
    /// The name of the only one.
    pub const NAME: &'static str = "novelty";

    /// The only one, as it travels.
    pub fn resource() -> NamedResource {
        let (name, version) = (Self::NAME.to_owned(), "1".to_owned());
        let resource = Some(Self { text: SAID.to_owned() }.to_any());
        NamedResource { version, resource, name, aliases: Vec::new() }
    }
}

impl Resource for Novelty {
    const TYPE_URL: &'static str = "type.googleapis.com/ringmail.discovery.v2.Novelty";
}

/// An encoded message of this type, as the later version says it.
pub(crate) fn said(type_url: &str, encoded: Vec<u8>) -> Vec<u8> {
    let known = [(Mode::Strict.into(), EXCLUSIVE), (TunnelProtocol::LegacyIstioMtls.into(), LATER_TUNNEL)];
    let mut said = translated(type_url, encoded, known);
    if matches!(type_url, Inbound::TYPE_URL | Destination::TYPE_URL | Authorization::TYPE_URL) {
        said.extend(More { text: SAID.to_owned(), numbers: vec![1, 70_000] }.encode_to_vec());
    }
    said
}

/// A message as it came, in words that are known here: the later version knows those of both.
pub(crate) fn heard(any: &Any) -> Any {
    let later = [(EXCLUSIVE, Mode::Strict.into()), (LATER_TUNNEL, TunnelProtocol::LegacyIstioMtls.into())];
    Any { type_url: any.type_url.clone(), value: translated(&any.type_url, any.value.to_vec(), later).into() }
}

/// A message with one mode and one way to reach a workload in place of another, each `(from, to)`. What cannot be
/// decoded stays as it is.
fn translated(type_url: &str, encoded: Vec<u8>, [mode, tunnel]: [(i32, i32); 2]) -> Vec<u8> {
    let modes = |whole: &mut Option<ModeDecision>, ports: &mut [PortMode]| {
        for decision in whole.iter_mut().chain(ports.iter_mut().filter_map(|port| port.mode.as_mut())) {
            replace(&mut decision.mode, mode);
        }
    };
    let text = match type_url {
        Inbound::TYPE_URL => Inbound::decode(&*encoded).map(|mut message| {
            modes(&mut message.mode, &mut message.ports);
            message.encode_to_vec()
        }),
        Destination::TYPE_URL => Destination::decode(&*encoded).map(|mut message| {
            modes(&mut message.mode, &mut message.ports);
            message.encode_to_vec()
        }),
        Address::TYPE_URL => Address::decode(&*encoded).map(|mut message| {
            if let Some(address::Type::Workload(workload)) = &mut message.r#type {
                replace(&mut workload.tunnel_protocol, tunnel);
            }
            message.encode_to_vec()
        }),
        _ => return encoded,
    };
    text.unwrap_or(encoded)
}

fn replace(value: &mut i32, (from, to): (i32, i32)) {
    if *value == from {
        *value = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    #[test]
    fn what_the_later_version_says_differs_and_is_heard_as_it_was_meant() {
        let mode = Some(ModeDecision { mode: Mode::Strict.into(), decided_by: None });
        let ports = vec![PortMode { port: 10800, mode: mode.clone() }];
        let sent = Inbound { mode, ports, ..Inbound::default() };
        let any = sent.to_any();
        let as_before = Inbound::decode(any.value.clone()).unwrap();
        assert_eq!((as_before.mode.unwrap().mode, as_before.ports[0].mode.as_ref().unwrap().mode), (4, 4));
        assert_eq!(More::decode(any.value.clone()).unwrap().text, SAID);
        assert_eq!(Inbound::from_any(&any).unwrap(), sent);

        let tunnel_protocol = TunnelProtocol::LegacyIstioMtls.into();
        let workload = Workload { tunnel_protocol, ..Workload::default() };
        let sent = Address { r#type: Some(address::Type::Workload(workload)) };
        let any = sent.to_any();
        assert_ne!(Address::decode(any.value.clone()).unwrap(), sent);
        assert_eq!(Address::from_any(&any).unwrap(), sent);
    }
}
