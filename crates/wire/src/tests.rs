//! Frames read back as written, and each way to be malformed has its name.

use alloc::{string::String, vec, vec::Vec};

use keyway_abi::{
    Badge, Event, Farewell, Fault, Handle, LaneId, Malformed, Name, PROTOCOL_VERSION, Reply, Request, Rights,
    Terms,
    limits::{EVENT_ENTRIES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES},
    request,
};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

use crate::{Incoming, RequestHead, descriptors_said, encode_event, encode_reply, encode_request};

/// The crate's own, whose refusals are noted.
fn decode_request(bytes: &[u8], descriptors: usize) -> Result<(RequestHead, Request), Malformed> {
    crate::decode_request(bytes, descriptors).inspect_err(|error| keyway_provoked::note(error, "a request"))
}

/// The crate's own, whose refusals are noted.
fn decode_incoming(bytes: &[u8], descriptors: usize) -> Result<Incoming, Malformed> {
    let decoded = crate::decode_incoming(bytes, descriptors);
    decoded.inspect_err(|error| keyway_provoked::note(error, "a reply or an event"))
}

fn derive() -> Request {
    request::Derive {
        from: Handle::new(3, 9),
        terms: Terms { badge: Some(Badge(7)), ..Terms::rights(Rights::SEND) },
    }
    .into()
}

fn frame() -> Vec<u8> {
    encode_request(5, &derive(), 0).expect("short")
}

#[test]
fn requests_read_back_as_written() {
    let (head, request) = decode_request(&frame(), 0).expect("lawful");
    assert_eq!((head.number, head.opcode, head.descriptors), (5, 8, 0));
    assert_eq!(request, derive());
}

#[test]
fn replies_and_events_read_back_as_written() {
    let reply = Reply::Revoked { count: 1 << 40 };
    let bytes = encode_reply(10, 77, &reply, 0).expect("short");
    assert_eq!(decode_incoming(&bytes, 0), Ok(Incoming::Reply(77, reply)));
    let event = Event::Farewell(Farewell::Fault(Fault::DescriptorsSent { count: 3 }));
    let bytes = encode_event(&event, 0).expect("short");
    assert_eq!(decode_incoming(&bytes, 0), Ok(Incoming::Event(event)));
}

#[test]
fn too_short_and_too_long_are_named() {
    assert_eq!(decode_request(&[1, 0], 0), Err(Malformed::TooShort { bytes: 2, bytes_min: 16 }));
    let long = vec![0; FRAME_BYTES_MAX + 1];
    assert_eq!(decode_request(&long, 0), Err(Malformed::TooLong { bytes_max: FRAME_BYTES_MAX as u32 }));
}

#[test]
fn unknown_version_and_opcode_are_named() {
    let mut bytes = frame();
    bytes[0] = 9;
    assert_eq!(
        decode_request(&bytes, 0),
        Err(Malformed::UnknownVersion { found: 9, spoken: PROTOCOL_VERSION })
    );
    let mut bytes = frame();
    bytes[2..4].copy_from_slice(&0x3fffu16.to_le_bytes());
    assert_eq!(decode_request(&bytes, 0), Err(Malformed::UnknownOpcode { opcode: 0x3fff }));
}

#[test]
fn a_request_is_no_reply_and_a_reply_no_request() {
    assert_eq!(decode_incoming(&frame(), 0), Err(Malformed::UnknownOpcode { opcode: 8 }));
    let reply = encode_reply(8, 1, &Reply::Done, 0).expect("short");
    assert_eq!(decode_request(&reply, 0), Err(Malformed::UnknownOpcode { opcode: 0x8008 }));
}

#[test]
fn wrong_length_reserved_and_descriptors_are_named() {
    let mut bytes = frame();
    bytes[12] += 1;
    let found = (bytes.len() - FRAME_HEADER_BYTES) as u32;
    assert_eq!(decode_request(&bytes, 0), Err(Malformed::LengthWrong { said: found + 1, found }));
    let mut bytes = frame();
    bytes[6] = 1;
    assert_eq!(decode_request(&bytes, 0), Err(Malformed::ReservedUsed { found: 1 }));
    assert_eq!(decode_request(&frame(), 2), Err(Malformed::DescriptorsWrong { said: 0, found: 2 }));
    let many = encode_request(5, &derive(), 200).expect("short");
    assert_eq!(decode_request(&many, 200), Err(Malformed::DescriptorsWrong { said: 200, found: 200 }));
}

#[test]
fn bytes_left_and_unreadable_bodies_are_named() {
    let mut bytes = frame();
    bytes.push(0);
    bytes[12] += 1;
    assert_eq!(decode_request(&bytes, 0), Err(Malformed::BytesLeft { opcode: 8, bytes: 1 }));
    let mut bytes = frame();
    bytes.truncate(FRAME_HEADER_BYTES);
    bytes[12] = 0;
    assert_eq!(decode_request(&bytes, 0), Err(Malformed::BodyUnreadable { opcode: 8 }));
}

#[test]
fn an_unlawful_name_is_unreadable() {
    let lawful = request::Lookup {
        directory: Handle::NONE,
        name: Name::new("abcd").expect("lawful"),
        on_behalf_of: None,
    };
    let mut bytes = encode_request(1, &lawful.into(), 0).expect("short");
    let at = bytes.windows(4).position(|window| window == b"abcd").expect("the name is there");
    bytes[at] = b'\n';
    assert_eq!(decode_request(&bytes, 0), Err(Malformed::BodyUnreadable { opcode: 12 }));
}

#[test]
fn events_of_many_things_fit_a_frame() {
    let (handle, lane) = (Handle::new(u32::MAX, u32::MAX), LaneId(u64::MAX));
    let events = [
        Event::CapabilitiesLost { handles: vec![handle; EVENT_ENTRIES_MAX] },
        Event::LanesEnded { lanes: vec![lane; EVENT_ENTRIES_MAX], why: keyway_abi::LaneEnd::PeerDead },
        Event::AcksDropped { acks: vec![(handle, u32::MAX); EVENT_ENTRIES_MAX] },
    ];
    for event in events {
        let bytes = encode_event(&event, 0).expect("it fits");
        assert_eq!(decode_incoming(&bytes, 0), Ok(Incoming::Event(event)));
    }
}

#[test]
fn frames_are_as_long_as_the_limit_and_no_longer() {
    let listing = |count: usize, bytes: usize| {
        let executable = "x".repeat(bytes);
        let entry = keyway_abi::ProcessEntry {
            process: keyway_abi::ProcessNumber(1),
            pid: 1,
            uid: 1,
            gid: 1,
            executable,
            since_ns: 1,
            handles: 1,
            lanes_sending: 1,
            lanes_receiving: 1,
            bytes: 1,
            confined: false,
        };
        Reply::Listing(keyway_abi::Listing::Processes(vec![entry; count]))
    };
    let short = encode_reply(26, 1, &listing(1, 0), 0).expect("short").len();
    // A length of two bytes instead of one.
    let room = FRAME_BYTES_MAX - short - 1;
    let longest = encode_reply(26, 1, &listing(1, room), 0).expect("it fits");
    assert_eq!(longest.len(), FRAME_BYTES_MAX);
    assert_eq!(decode_incoming(&longest, 0), Ok(Incoming::Reply(1, listing(1, room))));
    let too_long = encode_reply(26, 1, &listing(1, room + 1), 0).map_err(|error| error.bytes);
    assert_eq!(too_long, Err(FRAME_BYTES_MAX + 1));
}

#[test]
fn each_byte_of_a_length_and_of_a_number_counts() {
    let mut bytes = frame();
    bytes[8..12].copy_from_slice(&[8, 9, 10, 11]);
    let (head, _) = decode_request(&bytes, 0).expect("lawful");
    assert_eq!(head.number, u32::from_le_bytes([8, 9, 10, 11]));
    for at in 12..16 {
        let mut wrong = frame();
        wrong[at] ^= 1;
        let said = u32::from_le_bytes([wrong[12], wrong[13], wrong[14], wrong[15]]);
        let found = (wrong.len() - FRAME_HEADER_BYTES) as u32;
        assert_eq!(decode_request(&wrong, 0).map(|_| ()), Err(Malformed::LengthWrong { said, found }));
    }
}

#[test]
fn a_reply_is_told_from_a_request_by_one_bit() {
    let bytes = encode_reply(0x1a | crate::REPLY_BIT, 7, &Reply::Done, 0).expect("short");
    assert_eq!(
        decode_incoming(&bytes, 0),
        Ok(Incoming::Reply(7, Reply::Done)),
        "the bit is set, not flipped"
    );
}

#[test]
fn as_many_descriptors_as_may_come_may_come() {
    use keyway_abi::limits::FRAME_DESCRIPTORS_MAX;
    let max = FRAME_DESCRIPTORS_MAX as u16;
    let most = encode_request(1, &derive(), max).expect("short");
    assert!(decode_request(&most, FRAME_DESCRIPTORS_MAX).is_ok());
    let more = encode_request(1, &derive(), max + 1).expect("short");
    let wrong = Malformed::DescriptorsWrong { said: max + 1, found: max + 1 };
    assert_eq!(decode_request(&more, FRAME_DESCRIPTORS_MAX + 1).map(|_| ()), Err(wrong));
}

/// What the fuzzers begin with is of use only while it is understood.
#[test]
fn the_frames_kept_for_the_fuzzers_are_requests_of_today() {
    extern crate std;
    let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/frames");
    let mut operations = 0;
    for entry in std::fs::read_dir(kept).expect("the corpus is part of the tree") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let name = String::from(name);
        // Others have been found by the fuzzers.
        if !name.starts_with(char::is_uppercase) {
            continue;
        }
        let bytes = std::fs::read(&path).expect("it can be read");
        let (descriptors, frame) = bytes.split_first().expect("descriptors, and a frame");
        let request =
            decode_request(frame, usize::from(*descriptors)).map(|(_, request)| request.operation());
        assert_eq!(request, Ok(name.as_str()), "write the corpus anew: fuzz/src/seed_corpus.rs");
        operations += 1;
    }
    assert!(operations > 40, "{operations}");
}

#[test]
fn a_frame_says_how_many_descriptors_it_has_also_when_they_are_lost() {
    let event = Event::Doorbell { peer: keyway_abi::ProcessNumber(3) };
    let bytes = encode_event(&event, 1).expect("short");
    assert_eq!(descriptors_said(&bytes), 1);
    assert_eq!(decode_incoming(&bytes, 0), Err(Malformed::DescriptorsWrong { said: 1, found: 0 }));
    assert_eq!(decode_incoming(&bytes, descriptors_said(&bytes)), Ok(Incoming::Event(event)));
    assert_eq!([&bytes[..5], &[]].map(descriptors_said), [0, 0]);
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..256), descriptors in 0usize..4) {
        let _ = decode_request(&bytes, descriptors);
        let _ = decode_incoming(&bytes, descriptors);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        opcode in 1u16..=54,
        body in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = PROTOCOL_VERSION.to_le_bytes().to_vec();
        bytes.extend_from_slice(&opcode.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&9u32.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        if let Ok((head, request)) = decode_request(&bytes, 0) {
            let again = encode_request(head.number, &request, 0).expect("short");
            let (_, same) = decode_request(&again, 0).expect("lawful");
            prop_assert_eq!(&request, &same);
            // Postcard's variable-length integers have longer spellings; nothing longer than the input is written.
            prop_assert!(again.len() <= bytes.len());
        }
    }

    #[test]
    fn lane_events_survive(lanes in prop::collection::vec(any::<u64>().prop_map(LaneId), 0..=EVENT_ENTRIES_MAX)) {
        let event = Event::LanesEnded { lanes, why: keyway_abi::LaneEnd::Revoked };
        let bytes = encode_event(&event, 0).expect("short");
        prop_assert_eq!(decode_incoming(&bytes, 0), Ok(Incoming::Event(event)));
    }
}
