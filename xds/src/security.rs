//! `istio.security`: one AuthorizationPolicy, in the form in which its decision is a few comparisons.

use bytes::Bytes;
use prost::Message;

use crate::{Resource, ringmail::EXTENSION, workload::Extension};

/// A policy; its resource is named `<namespace>/<name>`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Authorization {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// What it holds for.
    #[prost(enumeration = "Scope", tag = "3")]
    pub scope: i32,
    /// What a match means.
    #[prost(enumeration = "Action", tag = "4")]
    pub action: i32,
    /// Any of them matches.
    #[prost(message, repeated, tag = "5")]
    pub rules: Vec<Rule>,
    /// Evaluated nowhere.
    #[prost(bool, tag = "6")]
    pub dry_run: bool,
    /// What others than Istio have to say of it.
    #[prost(message, repeated, tag = "7")]
    pub extensions: Vec<Extension>,
}

impl Resource for Authorization {
    const TYPE_URL: &'static str = "type.googleapis.com/istio.security.Authorization";

    /// To pass over a condition would let more peers in than the policy does: a rule that says more than is known here
    /// gets one clause more, whose question is nobody's to answer.
    fn note_unread(&mut self, encoded: &[u8]) {
        let Ok(RawRules { rules }) = RawRules::decode(encoded) else { return };
        for (rule, raw) in self.rules.iter_mut().zip(rules) {
            if rule.encoded_len() != raw.len() {
                let unread = Extension { name: EXTENSION.to_owned(), config: None };
                let matches = vec![Match { extensions: vec![unread], ..Match::default() }];
                rule.clauses.push(Clause { matches });
            }
        }
    }
}

/// The rules of an [`Authorization`] as they came.
#[derive(Clone, PartialEq, prost::Message)]
struct RawRules {
    #[prost(bytes = "bytes", repeated, tag = "5")]
    rules: Vec<Bytes>,
}

/// What a policy holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Scope {
    /// Every workload.
    Global = 0,
    /// Every workload of its namespace.
    Namespace = 1,
    /// The workloads that name it among their policies.
    WorkloadSelector = 2,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Action {
    /// The connection may go on.
    Allow = 0,
    /// It may not.
    Deny = 1,
}

/// All of its clauses must hold.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rule {
    /// The clauses.
    #[prost(message, repeated, tag = "1")]
    pub clauses: Vec<Clause>,
}

/// Any of its matches must hold.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Clause {
    /// The matches.
    #[prost(message, repeated, tag = "2")]
    pub matches: Vec<Match>,
}

/// Every field that is there must hold; within a field any value does, and within a `not_` field none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Match {
    /// The peer's namespace.
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<StringMatch>,
    /// None of these.
    #[prost(message, repeated, tag = "2")]
    pub not_namespaces: Vec<StringMatch>,
    /// The peer's identity without `spiffe://`.
    #[prost(message, repeated, tag = "3")]
    pub principals: Vec<StringMatch>,
    /// None of these.
    #[prost(message, repeated, tag = "4")]
    pub not_principals: Vec<StringMatch>,
    /// Where the connection comes from.
    #[prost(message, repeated, tag = "5")]
    pub source_ips: Vec<Address>,
    /// None of these.
    #[prost(message, repeated, tag = "6")]
    pub not_source_ips: Vec<Address>,
    /// Which of the pod's addresses it came to.
    #[prost(message, repeated, tag = "7")]
    pub destination_ips: Vec<Address>,
    /// None of these.
    #[prost(message, repeated, tag = "8")]
    pub not_destination_ips: Vec<Address>,
    /// Which of the pod's ports.
    #[prost(uint32, repeated, tag = "9")]
    pub destination_ports: Vec<u32>,
    /// None of these.
    #[prost(uint32, repeated, tag = "10")]
    pub not_destination_ports: Vec<u32>,
    /// The peer's service account.
    #[prost(message, repeated, tag = "11")]
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// None of these.
    #[prost(message, repeated, tag = "12")]
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// What others than Istio ask.
    #[prost(message, repeated, tag = "13")]
    pub extensions: Vec<Extension>,
}

/// A range of addresses.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub address: Vec<u8>,
    /// How many bits of it count.
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// A service account of a namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServiceAccountMatch {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The name.
    #[prost(string, tag = "2")]
    pub service_account: String,
}

/// A text that is asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringMatch {
    /// How.
    #[prost(oneof = "string_match::Type", tags = "1, 2, 3, 4")]
    pub r#type: Option<string_match::Type>,
}

/// How a text is asked for.
pub mod string_match {
    /// How.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        /// The whole text.
        #[prost(string, tag = "1")]
        Exact(String),
        /// Its beginning.
        #[prost(string, tag = "2")]
        Prefix(String),
        /// Its end.
        #[prost(string, tag = "3")]
        Suffix(String),
        /// Whatever it is, if it is there.
        #[prost(message, tag = "4")]
        Presence(super::Empty),
    }
}

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(principal: &str) -> Rule {
        let principal = StringMatch { r#type: Some(string_match::Type::Exact(principal.to_owned())) };
        let found = Match { principals: vec![principal], ..Match::default() };
        Rule { clauses: vec![Clause { matches: vec![found] }] }
    }

    /// The same with one field more, which nothing here knows.
    fn with_more(message: &impl Message) -> Vec<u8> {
        [message.encode_to_vec(), vec![0xa0, 0x06, 0x07]].concat()
    }

    #[test]
    fn a_rule_that_says_more_than_is_known_has_a_clause_that_nobody_can_answer() {
        let known = rule("a");
        let with_a_field_in_its_match = {
            let raw_match = with_more(&known.clauses[0].matches[0]);
            let of =
                |tag: u8, raw: &[u8]| [&[(tag << 3) | 2, u8::try_from(raw.len()).unwrap()][..], raw].concat();
            of(1, &of(2, &raw_match))
        };
        let raw = RawRules {
            rules: [known.encode_to_vec(), with_more(&known), with_a_field_in_its_match]
                .map(Bytes::from)
                .into(),
        };
        let any = crate::discovery::Any {
            type_url: Authorization::TYPE_URL.to_owned(),
            value: raw.encode_to_vec().into(),
        };
        let read = Authorization::from_any(&any).unwrap();
        let clauses: Vec<_> = read.rules.iter().map(|rule| rule.clauses.len()).collect();
        assert_eq!(clauses, [1, 2, 2]);
        let unread = &read.rules[2].clauses[1].matches[0];
        assert_eq!((&*unread.extensions[0].name, &unread.extensions[0].config), (EXTENSION, &None));
    }

    #[test]
    fn a_policy_that_says_more_beside_its_rules_is_read_as_it_is() {
        let sent = Authorization { name: "a".to_owned(), rules: vec![rule("a")], ..Authorization::default() };
        let any = crate::discovery::Any {
            type_url: Authorization::TYPE_URL.to_owned(),
            value: with_more(&sent).into(),
        };
        assert_eq!(Authorization::from_any(&any).unwrap(), sent);
    }
}
