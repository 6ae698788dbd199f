//! Which address a pod gets: the network plugins give the next one after the last that they gave, by a file of each family.
//!
//! So that a test can let a pod have the very address that another one had a moment ago, which otherwise comes round once
//! in as many pods as a node's range has addresses.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// Held by the plugin while it looks for an address.
const LOCK: &str = "lock";

/// One network of one node, as the plugin `host-local` keeps it: a file for each address in use.
#[derive(Debug)]
pub(super) struct PodAddresses {
    folder: PathBuf,
}

impl PodAddresses {
    /// Those that are kept in `folder`.
    pub(super) fn of(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether no pod has it.
    pub(super) fn is_free(&self, address: IpAddr) -> Result<bool> {
        let file = self.folder.join(address.to_string());
        let taken = file.try_exists().with_context(|| format!("look for {}", file.display()))?;
        Ok(!taken)
    }

    /// Has the next pod get them, one of each family.
    pub(super) fn give_next(&self, addresses: &[IpAddr]) -> Result<()> {
        let lock = self.folder.join(LOCK);
        let held = File::open(&lock).and_then(|file| file.lock().map(|()| file));
        let _held = held.with_context(|| format!("lock {}", lock.display()))?;
        for address in addresses {
            ensure!(self.is_free(*address)?, "{address} is still a pod's");
            let file = self.folder.join(last_given(*address));
            fs::write(&file, before(*address).to_string())
                .with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}

/// The file of the address that was given last. Ranges are numbered in their order, IPv4 first.
fn last_given(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "last_reserved_ip.0",
        IpAddr::V6(_) => "last_reserved_ip.1",
    }
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().wrapping_sub(1)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().wrapping_sub(1)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_pod_gets_what_comes_after_the_last_given_in_each_family() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "").unwrap();
        let addresses = PodAddresses::of(folder.path().to_owned());
        addresses.give_next(&["10.244.0.2".parse().unwrap(), "fd00::1:0".parse().unwrap()]).unwrap();
        let last = |family: &str| fs::read_to_string(folder.path().join(family)).unwrap();
        assert_eq!(last("last_reserved_ip.0"), "10.244.0.1");
        assert_eq!(last("last_reserved_ip.1"), "fd00::ffff");
    }

    #[test]
    fn an_address_in_use_is_not_given() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "").unwrap();
        fs::write(folder.path().join("10.244.0.7"), "sandbox").unwrap();
        let addresses = PodAddresses::of(folder.path().to_owned());
        let address = "10.244.0.7".parse().unwrap();
        assert!(!addresses.is_free(address).unwrap());
        let error = addresses.give_next(&[address]).unwrap_err().to_string();
        assert_eq!(error, "10.244.0.7 is still a pod's");
        assert!(!folder.path().join("last_reserved_ip.0").exists());
    }
}
