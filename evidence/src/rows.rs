//! What is promised, row by row: the table that the page is made of.

/// A part of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Bytes, certificates, tokens and resources that somebody made to do harm.
    Hostile,
    /// What breaks around a sidecar, and sidecars that break.
    Faults,
    /// More than anybody asks for.
    Load,
    /// What a machine has looked for, rather than a person.
    Proofs,
    /// What the programs are made of, and what they may do.
    Hardening,
    /// What somebody sees who is woken up.
    Operator,
}

impl Group {
    /// Its heading.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Hostile => "Hostile input",
            Self::Faults => "Faults",
            Self::Load => "Load",
            Self::Proofs => "Proofs by machine",
            Self::Hardening => "Supply chain and hardening",
            Self::Operator => "What an operator sees",
        }
    }
}

/// All parts, in the page's order.
pub const GROUPS: [Group; 6] = [Hostile, Faults, Load, Proofs, Hardening, Operator];

/// One promise.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Unique, and what a test names.
    pub id: &'static str,
    /// The part that it belongs to.
    pub group: Group,
    /// What happens, and what is promised of it.
    pub promise: &'static str,
}

const fn row(id: &'static str, group: Group, promise: &'static str) -> Row {
    Row { id, group, promise }
}

use Group::{Faults, Hardening, Hostile, Load, Operator, Proofs};

/// Every promise, in the page's order.
pub const ROWS: &[Row] = &[
    row("A1", Hostile, "plaintext to a STRICT port is refused"),
    row("A2", Hostile, "TLS without a client certificate is refused"),
    row("A3", Hostile, "another trust domain under the same root is refused"),
    row("A4", Hostile, "another root is refused"),
    row("A5", Hostile, "an expired certificate is refused"),
    row("A6", Hostile, "a certificate that is not valid yet is refused"),
    row("A7", Hostile, "key usages, purposes and the CA bit of a leaf are as an SVID's"),
    row("A8", Hostile, "exactly one URI name, a strict SPIFFE ID, byte by byte"),
    row("A9", Hostile, "a valid certificate of somebody else is refused by the client's sidecar"),
    row("A10", Hostile, "older versions, downgrades, renegotiation, resumption and early data are refused"),
    row(
        "A11",
        Hostile,
        "malformed, cut, huge and flooding TLS ends with its alert, in bounded time and memory",
    ),
    row("A12", Hostile, "other protocols' bytes are refused, nested TLS is carried as bytes"),
    row("A13", Hostile, "the proxy's own ports take nothing that was not captured"),
    row("A14", Hostile, "without an original destination nothing is dialled"),
    row("A15", Hostile, "addresses that are nobody's, everybody's or one's own neither loop nor leak"),
    row("A16", Hostile, "two sidecars that point at each other do not loop"),
    row("A17", Hostile, "the CA issues to the token's owner alone, whatever the request says"),
    row(
        "A18",
        Hostile,
        "the webhook answers malformed and crafted reviews with an error, and admits no bypass",
    ),
    row(
        "A19",
        Hostile,
        "chains 20 deep, 10,000 names, name constraints, cross-signed roots, duplicate extensions",
    ),
    row("A20", Hostile, "discovery that lies: duplicates, foreign and own addresses, 100,000 resources"),
    row("A21", Hostile, "YAML bombs, policies of 10 MB, definitions with unknown fields"),
    row("A22", Hostile, "the HTTP/2 of CA, control and webhook stands floods"),
    row("F1", Faults, "the CA is away for nine hours: no connection fails, readiness stays"),
    row("F2", Faults, "the CA comes back to 1,000 waiting proxies: no storm"),
    row("F3", Faults, "the CA is killed in the middle of writing: it starts again, what it issued holds"),
    row("F4", Faults, "the CA's key is lost or damaged: no new root by itself"),
    row("F5", Faults, "the CA's disk is full, read-only or failing: keys are never cut short"),
    row("F6", Faults, "clocks step by an hour, or are in the wrong year"),
    row("F7", Faults, "the own certificate expires, and comes back"),
    row("F8", Faults, "the sidecar is killed under load: never a byte of plaintext, back within a second"),
    row(
        "F9",
        Faults,
        "a peer vanishes: seen within 10 s with bytes in flight, within about a minute without (keepalive after 20 to 30 s, then 6 times 5 s)",
    ),
    row("F10", Faults, "a storm of resets: no descriptor leaks, the log is not flooded"),
    row("F11", Faults, "1,000 readers that never read: bounded memory, others undisturbed"),
    row("F12", Faults, "descriptors run out at 256: no spin, admin and renewal go on, it recovers"),
    row("F13", Faults, "threads or memory run out: it sheds, and says why"),
    row("F14", Faults, "drain with 500 long-lived connections, in every order of signals"),
    row("F15", Faults, "handshake floods and drippers: bounded, good clients undisturbed"),
    row("F16", Faults, "loss, delay, reordering and narrow links: streams stay whole"),
    row("F17", Faults, "1,000 changes of policy and bundle under load: one snapshot for each connection"),
    row("F18", Faults, "DNS, the API server, the webhook are away: the data path is untouched"),
    row("F19", Faults, "connection tracking is full or flushed: refused and counted, never a loop"),
    row("P1", Load, "9,000 idle connections"),
    row("P2", Load, "800 full handshakes a second"),
    row("P3", Load, "64 streams of random sizes with half-closes: not a byte differs"),
    row("P4", Load, "an hour of churn with a rotation every 30 s: memory does not grow"),
    row("P5", Load, "instructions for a handshake and a MiB do not creep up"),
    row("P6", Load, "2,000 slow connections under a memory limit of 32 MiB"),
    row("M1", Proofs, "every parser of foreign bytes is fuzzed, and finds a planted fault"),
    row(
        "M2",
        Proofs,
        "policy and route agree with slow, obvious oracles, and the record layer with rustls's",
    ),
    row("M3", Proofs, "what threads share is tried in every order"),
    row("M4", Proofs, "renewal, back-off and failover of the CA under simulated time and network"),
    row("M5", Proofs, "mutants of identity, policy, CA and record layer are noticed"),
    row("S1", Hardening, "no capability, seccomp, a read-only root, of running pods"),
    row("S2", Hardening, "each service account may do what it needs and no more"),
    row("S3", Hardening, "licences, sources and versions of dependencies"),
    row("S4", Hardening, "two builds in two folders give the same binary"),
    row("S5", Hardening, "unsafe code is counted"),
    row("S6", Hardening, "secrets appear in no log, dump or file, and a process's memory in no core"),
    row(
        "O1",
        Operator,
        "each fault leaves a line that says who, what, why and what to do, 10 a second at most",
    ),
    row("O2", Operator, "each alert fires within a minute of its fault, and is silent in normal life"),
];
