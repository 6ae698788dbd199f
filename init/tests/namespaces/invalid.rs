//! Packets that belong to no connection: without the drop, the kernel answers them with a reset, which hits
//! whoever has that connection open.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ringmail_init::rules::Family;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Lab, each_case, inside, peer_address, pod_address};

const SOURCE_PORT: u16 = 45678;
const DESTINATION_PORT: u16 = 47501;

#[test]
fn an_invalid_packet_is_dropped_and_answered_with_a_reset_when_the_drop_is_off() {
    for (backend, family) in each_case() {
        for (drop, expected) in [("true", false), ("false", true)] {
            let lab = Lab::new();
            lab.capture(backend, &[&format!("--invalid-drop={drop}"), "--skip-verify"]);
            let was_reset = inside(&lab.peer, || is_answered_with_reset(family));
            assert_eq!(was_reset, expected, "--invalid-drop={drop} {backend} {family:?}");
        }
    }
}

/// Sends the answer to a connect that nobody made and watches for a reset.
fn is_answered_with_reset(family: Family) -> bool {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let packet = syn_ack(peer_address(family), pod_address(family));
    socket.send_to(&packet, &SocketAddr::new(pod_address(family), 0).into()).unwrap();
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        let mut bytes = [0; 1500];
        match socket.read(&mut bytes) {
            Ok(count) => {
                // A raw socket of IPv4 shows the IP header too, one of IPv6 does not.
                let start = match family {
                    Family::V4 => usize::from(bytes[0] & 0xf) * 4,
                    Family::V6 => 0,
                };
                let tcp = &bytes[start..count];
                let ports = [tcp[0], tcp[1], tcp[2], tcp[3]];
                let expected = [DESTINATION_PORT.to_be_bytes(), SOURCE_PORT.to_be_bytes()].concat();
                if ports == expected[..] && tcp[13] & 0x04 != 0 {
                    return true;
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    false
}

fn syn_ack(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(SOURCE_PORT.to_be_bytes());
    header.extend(DESTINATION_PORT.to_be_bytes());
    header.extend(1000u32.to_be_bytes());
    header.extend(2000u32.to_be_bytes());
    header.extend([0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0]);
    let mut summed: Vec<u8> = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => summed.extend(address.octets()),
            IpAddr::V6(address) => summed.extend(address.octets()),
        }
    }
    summed.extend([0, 6]);
    summed.extend(u16::try_from(header.len()).unwrap().to_be_bytes());
    summed.extend(&header);
    let mut sum: u32 = summed.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).unwrap();
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}
