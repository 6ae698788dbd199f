//! What one client has been sent of its own pod's policies. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ringmail_xds::{Resource, ringmail::Inbound, security::Authorization};

use super::{
    subscription::Push,
    world::{OwnPolicies, Version},
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Own {
    policies: Option<HashMap<Arc<str>, Version>>,
    /// Within: the version that was sent last.
    inbound: Option<Option<Version>>,
}

impl Own {
    /// Asks for the policies; `held` is what the client holds of an earlier stream.
    pub(crate) fn ask_policies(&mut self, held: &BTreeMap<String, String>) {
        let held = held.iter().map(|(name, version)| (name.as_str().into(), Version::read(version)));
        self.policies.get_or_insert_with(|| held.collect());
    }

    /// Asks for the modes.
    pub(crate) fn ask_inbound(&mut self, held: Option<&str>) {
        self.inbound.get_or_insert_with(|| held.map(Version::read));
    }

    /// What the client does not hold yet: of policies, and of modes. The policies must be sent first.
    pub(crate) fn refresh(&mut self, now: &OwnPolicies) -> (Push, Push) {
        let (mut policies, mut inbound) = (Push::default(), Push::default());
        if let Some(held) = &mut self.policies {
            let mut gone = std::mem::take(held);
            for (name, encoded) in &now.authorizations {
                if gone.remove(name) != Some(encoded.version) {
                    policies.resources.push(encoded.named(Authorization::TYPE_URL, name, Vec::new()));
                }
                held.insert(Arc::clone(name), encoded.version);
            }
            policies.removed = gone.into_keys().map(|name| name.to_string()).collect();
        }
        if let Some(held) = &mut self.inbound
            && *held != Some(now.inbound.version)
        {
            *held = Some(now.inbound.version);
            inbound.resources.push(now.inbound.named(Inbound::TYPE_URL, Inbound::NAME, Vec::new()));
        }
        (policies, inbound)
    }
}
