//! From plaintext to records, and the alerts and key updates between them.

use rustls::AlertDescription;

use super::{
    content::{ALERT, APPLICATION_DATA, HANDSHAKE, RecordError},
    key::{Key, OVERHEAD},
    schedule::Schedule,
};
use crate::slab::{BULK_SLOTS, GAP_BEFORE, Slab};

/// A key update that asks for none back: type, length, and no (RFC 8446 section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// How severe an alert says that it is. In TLS 1.3 only its description counts.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// The sending half.
#[derive(Debug)]
pub(in crate::tls) struct Sealer {
    key: Key,
    /// Records after which the key must not seal any more.
    limit: u64,
    /// The peer asked for a new key, or this one is used up.
    update_due: bool,
}

impl Sealer {
    /// Seals with `key`, and no more than `limit` records with any one key: the confidentiality limit of the suite.
    pub(super) fn new(key: Key, limit: u64) -> Self {
        Self { key, limit, update_due: false }
    }

    /// Goes on where rustls's own record layer stands.
    pub(in crate::tls) fn taking_over(session: rustls::Connection) -> Result<Self, RecordError> {
        let secrets = session
            .dangerous_extract_secrets()
            .map_err(|_| RecordError::Key("the session has failed and gives none"))?;
        let (sequence, secrets) = secrets.tx;
        Ok(Self::new(Key::new(&secrets, sequence)?, u64::MAX))
    }

    /// Gives back what can be made again.
    pub(super) fn rest(&mut self) {
        self.key.rest();
    }

    /// The next data is to be sealed with a new key.
    pub(super) fn update_key(&mut self) {
        self.update_due = true;
    }

    /// Makes records of what was read into the slots. A key update goes ahead where one is due.
    pub(super) fn seal(&mut self, slab: &mut Slab, schedule: &mut Schedule) -> Result<(), RecordError> {
        // Room for this slab's records, the key update itself, and an alert.
        let used_up = self.key.sequence() + BULK_SLOTS as u64 + 2 > self.limit;
        let updated = self.update_due || used_up;
        if updated {
            self.seal_update(slab.headroom_mut())?;
            self.key = schedule.next_sealing()?;
            self.update_due = false;
        }
        slab.seal_slots(|record| self.key.seal(APPLICATION_DATA, record))?;
        if updated {
            slab.prepend_headroom();
        }
        Ok(())
    }

    fn seal_update(&mut self, headroom: &mut [u8]) -> Result<(), RecordError> {
        headroom[GAP_BEFORE..GAP_BEFORE + KEY_UPDATE.len()].copy_from_slice(&KEY_UPDATE);
        self.key.seal(HANDSHAKE, headroom)
    }

    /// The record that says that this side's application ended.
    pub(super) fn goodbye(&mut self) -> Result<Vec<u8>, RecordError> {
        self.sealed_alert(WARNING, AlertDescription::CloseNotify)
    }

    /// The record of a fatal alert.
    pub(in crate::tls) fn fatal(&mut self, description: AlertDescription) -> Result<Vec<u8>, RecordError> {
        self.sealed_alert(FATAL, description)
    }

    fn sealed_alert(&mut self, level: u8, description: AlertDescription) -> Result<Vec<u8>, RecordError> {
        let content = [level, description.into()];
        let mut record = vec![0; content.len() + OVERHEAD];
        record[GAP_BEFORE..GAP_BEFORE + content.len()].copy_from_slice(&content);
        self.key.seal(ALERT, &mut record)?;
        Ok(record)
    }
}
