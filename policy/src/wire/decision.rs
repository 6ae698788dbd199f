//! Modes, what clients are told, and what decided each.

use std::collections::BTreeMap;

use ringmail_xds::ringmail as message;

use super::{WireError, port};
use crate::destination::{TlsDecision, ToldTls};
use crate::destination_rule::ClientTls;
use crate::mode::{Mode, ModeDecision, PortModes};
use crate::origin::{Kind, Origin};
use crate::plaintext::PlaintextPorts;
use crate::report::Report;

impl Origin {
    pub(super) fn to_wire(&self) -> message::Origin {
        match self {
            Self::Default(text) => message::Origin { detail: text.to_string(), ..Default::default() },
            Self::Resource { kind, namespace, name, detail } => message::Origin {
                kind: kind.as_str().to_owned(),
                namespace: namespace.to_string(),
                name: name.to_string(),
                detail: detail.to_string(),
            },
        }
    }

    pub(super) fn from_wire(origin: Option<&message::Origin>) -> Result<Self, WireError> {
        let Some(origin) = origin else {
            return Err(WireError::new("decided_by", "the resource that decided", "nothing"));
        };
        if origin.kind.is_empty() {
            return Ok(Self::Default(origin.detail.clone().into()));
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == origin.kind) else {
            // A later sender's kind decides as any other; only its name has to be told as it came.
            let message::Origin { kind, namespace, name, detail } = origin;
            return Ok(Self::Default(
                format!("{kind} {namespace}/{name} {detail}").trim_end().to_owned().into(),
            ));
        };
        Ok(Self::Resource {
            kind,
            namespace: origin.namespace.as_str().into(),
            name: origin.name.as_str().into(),
            detail: origin.detail.as_str().into(),
        })
    }
}

impl ModeDecision {
    fn to_wire(&self) -> message::ModeDecision {
        let mode = match self.mode {
            Mode::Disable => message::Mode::Disable,
            Mode::Permissive => message::Mode::Permissive,
            Mode::Strict => message::Mode::Strict,
        };
        message::ModeDecision { mode: mode.into(), decided_by: Some(self.decided_by.to_wire()) }
    }

    fn from_wire(decision: Option<&message::ModeDecision>) -> Result<Self, WireError> {
        let Some(decision) = decision else {
            return Err(WireError::new("mode", "a mode", "nothing"));
        };
        let mode = match message::Mode::try_from(decision.mode) {
            Ok(message::Mode::Disable) => Mode::Disable,
            Ok(message::Mode::Permissive) => Mode::Permissive,
            // A later sender has words that are not known here. Whatever they ask, mutual TLS alone lets in no more.
            Ok(message::Mode::Strict) | Err(_) => Mode::Strict,
            Ok(message::Mode::Unspecified) => {
                return Err(WireError::new(
                    "mode",
                    "DISABLE (1), PERMISSIVE (2) or STRICT (3)",
                    decision.mode.to_string(),
                ));
            }
        };
        Ok(Self { mode, decided_by: Origin::from_wire(decision.decided_by.as_ref())? })
    }
}

impl PortModes {
    pub(super) fn to_wire(&self) -> (Option<message::ModeDecision>, Vec<message::PortMode>) {
        let port = |(port, mode): (&u16, &ModeDecision)| message::PortMode {
            port: (*port).into(),
            mode: Some(mode.to_wire()),
        };
        (Some(self.workload.to_wire()), self.ports.iter().map(port).collect())
    }

    pub(super) fn from_wire(
        whole: Option<&message::ModeDecision>,
        ports: &[message::PortMode],
    ) -> Result<Self, WireError> {
        let mut modes = BTreeMap::new();
        for entry in ports {
            modes.insert(port("ports.port", entry.port)?, ModeDecision::from_wire(entry.mode.as_ref())?);
        }
        Ok(Self { workload: ModeDecision::from_wire(whole)?, ports: modes })
    }
}

/// The modes of a later sender that are not known here, and are taken for STRICT.
pub(super) fn unknown_modes(inbound: &message::Inbound) -> impl Iterator<Item = Report> {
    let decisions = inbound.mode.iter().chain(inbound.ports.iter().filter_map(|port| port.mode.as_ref()));
    decisions.filter(|decision| message::Mode::try_from(decision.mode).is_err()).map(|decision| {
        let by = decision.decided_by.clone().unwrap_or_default();
        let text = format!(
            "mode {}: not known to this version, mutual TLS alone is served: upgrade the sidecar",
            decision.mode
        );
        let message::Origin { kind, namespace, name, .. } = by;
        Report { kind, namespace, name, source: CONTROL_PLANE.to_owned(), line: 1, path: String::new(), text }
    })
}

impl TlsDecision {
    fn to_wire(&self) -> message::TlsDecision {
        let tls = match self.tls {
            ClientTls::Disable => message::ClientTls::Disable,
            ClientTls::IstioMutual => message::ClientTls::IstioMutual,
            ClientTls::Mutual => message::ClientTls::Mutual,
            ClientTls::Simple => message::ClientTls::Simple,
        };
        message::TlsDecision { tls: tls.into(), decided_by: Some(self.decided_by.to_wire()) }
    }

    fn from_wire(decision: &message::TlsDecision) -> Result<Self, WireError> {
        let tls = match message::ClientTls::try_from(decision.tls) {
            Ok(message::ClientTls::Disable) => ClientTls::Disable,
            Ok(message::ClientTls::IstioMutual) => ClientTls::IstioMutual,
            // What is not known here is as little supported as this is, and refused with it: on these ports alone.
            Ok(message::ClientTls::Mutual) | Err(_) => ClientTls::Mutual,
            Ok(message::ClientTls::Simple) => ClientTls::Simple,
            Ok(message::ClientTls::Unspecified) => {
                return Err(WireError::new(
                    "tls",
                    "DISABLE (1), SIMPLE (2), MUTUAL (3) or ISTIO_MUTUAL (4)",
                    decision.tls.to_string(),
                ));
            }
        };
        Ok(Self { tls, decided_by: Origin::from_wire(decision.decided_by.as_ref())? })
    }
}

impl ToldTls {
    pub(super) fn to_wire(&self) -> (Option<message::TlsDecision>, Vec<message::PortTls>) {
        let ports = self.ports.iter().map(|(port, told)| message::PortTls {
            port: (*port).into(),
            tls: told.as_ref().map(TlsDecision::to_wire),
        });
        (self.whole.as_ref().map(TlsDecision::to_wire), ports.collect())
    }

    pub(super) fn from_wire(
        whole: Option<&message::TlsDecision>,
        ports: &[message::PortTls],
    ) -> Result<Self, WireError> {
        let mut told = Self { whole: whole.map(TlsDecision::from_wire).transpose()?, ports: BTreeMap::new() };
        for entry in ports {
            let tls = entry.tls.as_ref().map(TlsDecision::from_wire).transpose()?;
            told.ports.insert(port("port_tls.port", entry.port)?, tls);
        }
        Ok(told)
    }
}

impl PlaintextPorts {
    /// Nothing where there is nothing to say, as from a control plane that does not know of it.
    pub(super) fn to_wire(&self) -> Option<message::PlaintextPorts> {
        let ports = self.ports.iter().map(|(port, said)| message::PlaintextPort {
            port: (*port).into(),
            decided_by: said.as_ref().map(Origin::to_wire),
        });
        let message = message::PlaintextPorts {
            whole: self.whole.as_ref().map(Origin::to_wire),
            ports: ports.collect(),
        };
        (*self != Self::default()).then_some(message)
    }

    pub(super) fn from_wire(message: Option<&message::PlaintextPorts>) -> Result<Self, WireError> {
        let Some(message) = message else { return Ok(Self::default()) };
        let read = |origin: &Option<message::Origin>| {
            origin.as_ref().map(|origin| Origin::from_wire(Some(origin))).transpose()
        };
        let mut ports = BTreeMap::new();
        for entry in &message.ports {
            ports.insert(port("plaintext.ports.port", entry.port)?, read(&entry.decided_by)?);
        }
        Ok(Self { whole: read(&message.whole)?, ports })
    }
}

impl Report {
    pub(super) fn to_wire(&self) -> message::Report {
        message::Report {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            text: self.text.clone(),
        }
    }

    pub(super) fn from_wire(report: &message::Report) -> Self {
        Self {
            kind: report.kind.clone(),
            namespace: report.namespace.clone(),
            name: report.name.clone(),
            source: CONTROL_PLANE.to_owned(),
            line: 1,
            path: String::new(),
            text: report.text.clone(),
        }
    }
}

/// Where a resource's text came from, when it was compiled elsewhere.
pub(super) const CONTROL_PLANE: &str = "control plane";
