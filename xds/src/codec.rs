//! Messages whose parts are counted before they are read: an empty part is two bytes on the wire, and a hundred in memory.

use prost::{
    Message,
    bytes::Buf,
    encoding::{WireType, decode_key, decode_varint},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;

/// Fields of a message and of what is right below it: four for each of 65,536 resources.
const MAX_PARTS: usize = 256 * 1024;

/// Reads `D` where it has no more parts than may be.
#[derive(Clone, Debug)]
pub(crate) struct Counting<E, D>(ProstCodec<E, D>);

impl<E, D> Default for Counting<E, D> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

/// The reading half of [`Counting`].
#[derive(Clone, Debug)]
pub(crate) struct CountingDecoder<D>(D);

impl<E, D> Codec for Counting<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = <ProstCodec<E, D> as Codec>::Encoder;
    type Decoder = CountingDecoder<<ProstCodec<E, D> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CountingDecoder(self.0.decoder())
    }
}

impl<D: Decoder<Error = Status>> Decoder for CountingDecoder<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // A message arrives whole, in one piece.
        if parts(source.chunk(), 1) > MAX_PARTS {
            return Err(Status::out_of_range(format!("a message of more than {MAX_PARTS} parts")));
        }
        self.0.decode(source)
    }
}

/// How many fields there are, and in each of them, `depth` levels down. What cannot be read ends the count: the decoder says so.
fn parts(mut bytes: &[u8], depth: u8) -> usize {
    let mut count = 0;
    while bytes.has_remaining() && count <= MAX_PARTS {
        let Ok((_, wire_type)) = decode_key(&mut bytes) else { return count };
        count += 1;
        let length = match wire_type {
            WireType::LengthDelimited => decode_varint(&mut bytes).ok(),
            WireType::Varint => decode_varint(&mut bytes).ok().map(|_| 0),
            WireType::SixtyFourBit => Some(8),
            WireType::ThirtyTwoBit => Some(4),
            WireType::StartGroup | WireType::EndGroup => Some(0),
        };
        let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else { return count };
        let Some((field, rest)) = bytes.split_at_checked(length) else { return count };
        if depth > 0 && wire_type == WireType::LengthDelimited {
            count += parts(field, depth - 1);
        }
        bytes = rest;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{DeltaDiscoveryResponse, NamedResource};

    #[test]
    fn what_is_right_below_counts_too_and_a_message_of_a_real_size_is_far_from_the_bound() {
        let resource =
            NamedResource { name: "n".to_owned(), aliases: vec![String::new(); 5], ..Default::default() };
        let answer = DeltaDiscoveryResponse {
            resources: vec![resource; 3],
            removed_resources: vec![String::new(); 7],
            ..DeltaDiscoveryResponse::default()
        };
        assert_eq!(parts(&answer.encode_to_vec(), 1), 3 + 3 * 6 + 7);
        let named = NamedResource { name: "n".to_owned(), version: "1".to_owned(), ..Default::default() };
        let large = DeltaDiscoveryResponse { resources: vec![named; 16 * 1024], ..Default::default() };
        assert!(parts(&large.encode_to_vec(), 1) < MAX_PARTS / 4);
    }

    #[test]
    fn a_message_of_nothing_but_empty_parts_is_over_the_bound_at_each_depth() {
        let empty = [0x12, 0].repeat(8 * 1024 * 1024);
        assert!(parts(&empty, 1) > MAX_PARTS);
        let aliases = NamedResource { aliases: vec![String::new(); 300_000], ..Default::default() };
        let answer = DeltaDiscoveryResponse { resources: vec![aliases], ..Default::default() };
        assert!(parts(&answer.encode_to_vec(), 1) > MAX_PARTS);
    }

    #[test]
    fn bytes_that_are_no_message_end_the_count() {
        for bytes in [&[0xff; 20][..], &[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0x07], &[0x09, 1]] {
            assert!(parts(bytes, 1) <= 2, "{bytes:?}");
        }
    }
}
