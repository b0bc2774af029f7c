//! Every request whole and in parts, everything that is none, and the bytes of what is sent.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

fn message(opcode: u16, body: &[u8]) -> Vec<u8> {
    [&opcode.to_ne_bytes(), &(body.len() as u16).to_ne_bytes(), body].concat()
}

fn path(bytes: &[u8]) -> Vec<u8> {
    message(OPEN_DEVICE, &[&(bytes.len() as u16).to_ne_bytes(), bytes].concat())
}

fn refused(bytes: &[u8]) -> Option<Malformed> {
    decode(bytes).err().inspect(|malformed| keyway_provoked::note(malformed, "decode"))
}

#[test]
fn every_request_is_read_whole_and_nothing_before_that() {
    let longest = [b"/dev/".as_slice(), &[b'x'; 250]].concat();
    let terminated = [longest.as_slice(), &[0]].concat();
    assert_eq!(terminated.len(), PATH_BYTES_MAX);
    let numbered = |opcode, number: i32| message(opcode, &number.to_ne_bytes());
    let requests = [
        (message(1, &[]), Request::OpenSeat),
        (message(2, &[]), Request::CloseSeat),
        (path(b"/dev/dri/card0\0"), Request::OpenDevice(b"/dev/dri/card0")),
        (path(&terminated), Request::OpenDevice(&longest)),
        (numbered(4, -7), Request::CloseDevice(-7)),
        (message(5, &[]), Request::DisableSeat),
        (numbered(6, i32::MAX), Request::SwitchSession(i32::MAX)),
        (message(7, &[]), Request::Ping),
    ];
    for (bytes, request) in requests {
        assert!(bytes.len() <= REQUEST_BYTES_MAX);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Ok(None), "{request:?}, {end} bytes");
        }
        assert_eq!(decode(&bytes), Ok(Some((request, bytes.len()))));
        // What comes after it is not looked at.
        let more = [bytes.as_slice(), &[0xff; 9]].concat();
        assert_eq!(decode(&more), Ok(Some((request, bytes.len()))));
    }
}

#[test]
fn what_is_no_request_is_named_as_soon_as_it_is_known() {
    for opcode in [0, 8, 0x8001, 0xffff] {
        assert_eq!(refused(&message(opcode, &[])), Some(Malformed::UnknownOpcode { opcode }));
    }
    for (opcode, bytes, bytes_expected) in
        [(1, 1, 0), (2, 4, 0), (4, 0, 4), (4, 3, 4), (4, 5, 4), (5, 1, 0), (6, 8, 4), (7, 65_535, 0)]
    {
        // The header alone.
        let header = [u16::to_ne_bytes(opcode), u16::to_ne_bytes(bytes)].concat();
        let bytes = usize::from(bytes);
        assert_eq!(refused(&header), Some(Malformed::WrongSize { opcode, bytes, bytes_expected }));
    }
}

#[test]
fn a_path_ends_with_its_only_nul_and_is_bounded() {
    let bytes_max = PATH_BYTES_MAX;
    let header = |size: u16| [3_u16.to_ne_bytes(), size.to_ne_bytes()].concat();
    assert_eq!(refused(&header(259)), Some(Malformed::PathLength { bytes: 257, bytes_max }));
    assert_eq!(refused(&header(65_535)), Some(Malformed::PathLength { bytes: 65_533, bytes_max }));
    for short in [0, 1] {
        let wrong = Malformed::WrongSize { opcode: 3, bytes: short, bytes_expected: 2 };
        assert_eq!(refused(&header(short as u16)), Some(wrong));
        // Whatever follows.
        let longer = [header(short as u16).as_slice(), b"@\0@"].concat();
        assert_eq!(refused(&longer), Some(wrong));
    }
    assert_eq!(refused(&path(b"")), Some(Malformed::PathLength { bytes: 0, bytes_max }));
    assert_eq!(refused(&path(b"\0")), Some(Malformed::PathLength { bytes: 1, bytes_max }));
    for text in [b"/dev/null".as_slice(), b"/dev\0null\0", b"\0\0"] {
        assert_eq!(refused(&path(text)), Some(Malformed::PathUnterminated));
    }
    // The two lengths contradict each other, in both directions.
    for length in [5_u16, 7, 0, u16::MAX] {
        let body = [length.to_ne_bytes().as_slice(), b"/dev/\0"].concat();
        let bytes_expected = 2 + usize::from(length);
        let wrong = Malformed::WrongSize { opcode: 3, bytes: 8, bytes_expected };
        assert_eq!(refused(&message(3, &body)), Some(wrong));
    }
}

#[test]
fn messages_have_the_bytes_that_libseat_reads() {
    if cfg!(target_endian = "little") {
        assert_eq!(Message::SeatOpened.encode(), b"\x01\x80\x08\x00\x06\x00seat0\0");
        assert_eq!(Message::EnableSeat.encode(), [6, 0x80, 0, 0]);
        assert_eq!(Message::DeviceOpened(1).encode(), [3, 0x80, 4, 0, 1, 0, 0, 0]);
        assert_eq!(Message::Error(13).encode(), [0xff, 0xff, 4, 0, 13, 0, 0, 0]);
    }
    let opcodes = [
        (Message::SeatClosed, 0x8002),
        (Message::DeviceClosed, 0x8004),
        (Message::DisableSeat, 0x8005),
        (Message::Pong, 0x8007),
        (Message::SessionSwitched, 0x8008),
        (Message::SeatDisabled, 0x8009),
    ];
    for (told, opcode) in opcodes {
        assert_eq!(told.encode(), message(opcode, &[]));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_named_or_the_beginning_of_one(
        opcode in 0_u16..9, size in prop_oneof![0_u16..12, any::<u16>()],
        rest in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..300), cut in 0_usize..304,
    ) {
        let mut bytes = [opcode.to_ne_bytes(), size.to_ne_bytes()].concat();
        bytes.extend(rest);
        bytes.truncate(cut);
        match decode(&bytes) {
            Ok(Some((_, used))) => {
                prop_assert!(used <= bytes.len() && used <= REQUEST_BYTES_MAX);
                // Fewer bytes are not yet this request.
                prop_assert_eq!(decode(&bytes[..used - 1]), Ok(None));
            }
            // Whatever is still to come of it fits the longest request.
            Ok(None) => prop_assert!(bytes.len() < REQUEST_BYTES_MAX),
            Err(malformed) => {
                let longer = [bytes.as_slice(), &vec![0; 300]].concat();
                prop_assert_eq!(decode(&longer), Err(malformed));
            }
        }
    }
}
