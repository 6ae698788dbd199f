//! The example of RFC 8448 section 3: application data and goodbyes of both sides, byte for byte.

use aws_lc_rs::aead::AES_128_GCM;
use rustls::CipherSuite;

use super::super::{
    key::Key,
    open::{Opened, Opener},
    schedule::{Schedule, Side, TrafficSecrets},
    seal::Sealer,
};
use crate::slab::{GAP_BEFORE, Size, Slab};

const CLIENT: (&str, &str) = ("17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9");
const SERVER: (&str, &str) = ("9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984");

const CLIENT_DATA: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a\
                           20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const SERVER_DATA: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb\
                           501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const CLIENT_GOODBYE: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
const SERVER_GOODBYE: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn key((key, iv): (&str, &str), sequence: u64) -> Key {
    Key::of(&AES_128_GCM, &bytes(key), &bytes(iv), sequence).unwrap()
}

/// Nothing here updates a key.
fn schedule() -> Schedule {
    let suite = Some(CipherSuite::TLS13_AES_128_GCM_SHA256);
    Schedule::new(suite, Side::Server, TrafficSecrets::default()).unwrap()
}

fn payload() -> Vec<u8> {
    (0..50).collect()
}

#[test]
fn data_and_goodbyes_are_sealed_as_in_the_example() {
    // The server's first record is a ticket, which is never sent here.
    for (keys, sequence, data, goodbye) in
        [(CLIENT, 0, CLIENT_DATA, CLIENT_GOODBYE), (SERVER, 1, SERVER_DATA, SERVER_GOODBYE)]
    {
        let mut sealer = Sealer::new(key(keys, sequence), u64::MAX);
        let mut slab = Slab::holding(&payload());
        sealer.seal(&mut slab, &mut schedule()).unwrap();
        assert_eq!(slab.first_piece(), bytes(data));
        assert!(!slab.is_scattered());
        assert_eq!(sealer.goodbye().unwrap(), bytes(goodbye));
    }
}

#[test]
fn data_and_goodbyes_are_opened_as_in_the_example() {
    for (keys, sequence, data, goodbye) in
        [(CLIENT, 0, CLIENT_DATA, CLIENT_GOODBYE), (SERVER, 1, SERVER_DATA, SERVER_GOODBYE)]
    {
        let mut opener = Opener::new(key(keys, sequence));
        let mut buffer = [bytes(data), bytes(goodbye)].concat();
        let (opened, next) = opener.open(&mut buffer, 0, &mut schedule()).unwrap().unwrap();
        assert_eq!(opened, Opened::Data(GAP_BEFORE..GAP_BEFORE + 50));
        assert_eq!(buffer[GAP_BEFORE..GAP_BEFORE + 50], payload());
        let (opened, next) = opener.open(&mut buffer, next, &mut schedule()).unwrap().unwrap();
        assert_eq!((opened, next), (Opened::End, buffer.len()));
    }
}

#[test]
fn a_full_slab_is_sealed_into_one_run() {
    let mut sealer = Sealer::new(key(CLIENT, 0), u64::MAX);
    let mut slab = Slab::lend(Size::Bulk);
    let room: usize = slab.slots_mut().unwrap().iter().map(|slot| slot.len()).sum();
    slab.filled(room, true);
    sealer.seal(&mut slab, &mut schedule()).unwrap();
    assert!(!slab.is_scattered());
    assert_eq!(slab.len(), room + 16 * (5 + 1 + 16));
}
