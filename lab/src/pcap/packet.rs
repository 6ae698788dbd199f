//! One Ethernet frame as a TCP segment, if it is one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERNET_HEADER: usize = 14;
const TCP: u8 = 6;

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) sequence: u32,
    /// The next byte expected of the other side, when the segment says.
    pub(super) acknowledged: Option<u32>,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) payload: &'a [u8],
}

/// Reads a frame; none for anything but TCP over IPv4 or IPv6 without extension headers.
pub(super) fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    match frame.get(12..ETHERNET_HEADER)? {
        [0x08, 0x00] => ipv4(packet),
        [0x86, 0xdd] => ipv6(packet),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Segment<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let length = usize::from(u16_at(packet, 2)?);
    // Jumbo offload leaves the length at zero; short frames are padded beyond it.
    let end = if length == 0 { packet.len() } else { length };
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (*packet.get(9)? == TCP).then_some(())?;
    tcp(packet.get(header..end)?, Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into())
}

fn ipv6(packet: &[u8]) -> Option<Segment<'_>> {
    const HEADER: usize = 40;
    let length = usize::from(u16_at(packet, 4)?);
    let end = if length == 0 { packet.len() } else { HEADER + length };
    let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let destination: [u8; 16] = packet.get(24..HEADER)?.try_into().ok()?;
    (*packet.get(6)? == TCP).then_some(())?;
    tcp(packet.get(HEADER..end)?, Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into())
}

fn tcp(segment: &[u8], source: IpAddr, destination: IpAddr) -> Option<Segment<'_>> {
    let flags = *segment.get(13)?;
    let header = usize::from(segment.get(12)? >> 4) * 4;
    Some(Segment {
        source: SocketAddr::new(source, u16_at(segment, 0)?),
        destination: SocketAddr::new(destination, u16_at(segment, 2)?),
        sequence: u32_at(segment, 4)?,
        acknowledged: if flags & 0x10 != 0 { Some(u32_at(segment, 8)?) } else { None },
        syn: flags & 0x02 != 0,
        fin: flags & 0x01 != 0,
        rst: flags & 0x04 != 0,
        payload: segment.get(header..)?,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const SYN: u8 = 0x02;
    pub(in super::super) const ACK: u8 = 0x10;
    pub(in super::super) const FIN: u8 = 0x11;

    /// A frame with a TCP segment from `10.77.0.<a>:port` to `10.77.0.<b>:port`, padded as Ethernet pads.
    pub(in super::super) fn frame(
        from: (u8, u16),
        to: (u8, u16),
        numbers: (u32, u32),
        flags: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((u16::try_from(payload.len()).unwrap() + 40).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, TCP, 0, 0, 10, 77, 0, from.0, 10, 77, 0, to.0]);
        frame.extend(from.1.to_be_bytes());
        frame.extend(to.1.to_be_bytes());
        frame.extend(numbers.0.to_be_bytes());
        frame.extend(numbers.1.to_be_bytes());
        frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(payload);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    #[test]
    fn a_segment_is_read_without_the_padding_of_its_frame() {
        let bytes = frame((1, 40000), (2, 47500), (7, 9), FIN, b"ab");
        let read = segment(&bytes).unwrap();
        assert_eq!(read.source, "10.77.0.1:40000".parse().unwrap());
        assert_eq!(read.destination, "10.77.0.2:47500".parse().unwrap());
        assert_eq!((read.sequence, read.acknowledged, read.payload), (7, Some(9), b"ab".as_slice()));
        assert!(read.fin && !read.syn && !read.rst);
    }

    #[test]
    fn what_is_cut_or_no_tcp_is_no_segment() {
        let bytes = frame((1, 1), (2, 2), (0, 0), ACK, &[7; 100]);
        for length in 0..bytes.len() {
            assert_eq!(segment(&bytes[..length]), None, "cut at {length}");
        }
        let mut udp = bytes;
        udp[23] = 17;
        assert_eq!(segment(&udp), None);
    }
}
