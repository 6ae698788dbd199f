//! Everything about connections to one pod: one message for the modes, and one for each policy.

use ringmail_xds::{ringmail as message, security};

use super::{WireError, decision};
use crate::authorization::{Authorization, CompiledPolicy};
use crate::inbound::Inbound;
use crate::mode::PortModes;
use crate::plaintext::PlaintextPorts;
use crate::report::Report;

impl Inbound {
    /// The messages that say the same. The policies are oldest first; their names and versions, and what holds for
    /// the mesh, are for the sender to fill in.
    pub fn to_wire(&self) -> (message::Inbound, Vec<security::Authorization>) {
        let (mode, ports) = self.modes.to_wire();
        let reports = self.reports.iter().map(Report::to_wire).collect();
        let plaintext = self.plaintext.to_wire();
        let inbound = message::Inbound { mode, ports, reports, plaintext, ..message::Inbound::default() };
        (inbound, self.authorization.policies().iter().map(CompiledPolicy::to_wire).collect())
    }

    /// Reads [`to_wire`](Self::to_wire) back; `policies` must be in the order in which `inbound` names them.
    ///
    /// # Errors
    /// [`WireError`] with the field that does not say what is needed.
    pub fn from_wire<'m>(
        inbound: &message::Inbound,
        policies: impl IntoIterator<Item = &'m security::Authorization>,
    ) -> Result<Self, WireError> {
        let mut reports: Vec<_> = inbound.reports.iter().map(Report::from_wire).collect();
        reports.extend(decision::unknown_modes(inbound));
        let read = |policy| CompiledPolicy::from_wire(policy, &mut reports);
        let policies = policies.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            modes: PortModes::from_wire(inbound.mode.as_ref(), &inbound.ports)?,
            authorization: Authorization::of(policies),
            plaintext: PlaintextPorts::from_wire(inbound.plaintext.as_ref())?,
            reports,
        })
    }
}
