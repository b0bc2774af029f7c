//! Bytes that are no request: each way to be malformed, by name, and garbage without end.

use std::{os::unix::net::UnixDatagram, time::Duration};

use keyway_abi::{
    Farewell, Handle, Malformed, PROTOCOL_VERSION,
    limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES},
    request,
};
use keyway_sys::frame::{self, Waiting};
use keyway_wire::Incoming;

use crate::{
    Scene,
    session::{Heard, Session},
};

/// A place in the table for each variant; a new one does not compile without.
fn place(malformed: Malformed) -> usize {
    match malformed {
        Malformed::TooShort { .. } => 0,
        Malformed::TooLong { .. } => 1,
        Malformed::UnknownVersion { .. } => 2,
        Malformed::UnknownOpcode { .. } => 3,
        Malformed::LengthWrong { .. } => 4,
        Malformed::ReservedUsed { .. } => 5,
        Malformed::BodyUnreadable { .. } => 6,
        Malformed::BytesLeft { .. } => 7,
        Malformed::DescriptorsWrong { .. } => 8,
    }
}

const PLACES: usize = 9;

/// A lawful frame with some of its bytes replaced.
fn lawful_but(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let request = request::ListOwn { after: Handle::NONE }.into();
    let mut bytes = keyway_wire::encode_request(1, &request, 0).unwrap();
    change(&mut bytes);
    bytes
}

fn broken_frames() -> Vec<(Vec<u8>, Malformed)> {
    let body_bytes = lawful_but(|_| {}).len() as u32 - FRAME_HEADER_BYTES as u32;
    let bytes_max = FRAME_BYTES_MAX as u32;
    let opcode = request::ListOwn::OPCODE;
    vec![
        (vec![7], Malformed::TooShort { bytes: 1, bytes_min: 16 }),
        (lawful_but(|bytes| bytes.truncate(15)), Malformed::TooShort { bytes: 15, bytes_min: 16 }),
        (vec![0; FRAME_BYTES_MAX + 1], Malformed::TooLong { bytes_max }),
        (vec![1; FRAME_BYTES_MAX + 2], Malformed::TooLong { bytes_max }),
        (vec![255; 60_000], Malformed::TooLong { bytes_max }),
        (vec![9; FRAME_BYTES_MAX], Malformed::UnknownVersion { found: 0x0909, spoken: PROTOCOL_VERSION }),
        (lawful_but(|bytes| bytes[0] = 9), Malformed::UnknownVersion { found: 9, spoken: PROTOCOL_VERSION }),
        (lawful_but(|bytes| bytes[2] = 250), Malformed::UnknownOpcode { opcode: 250 }),
        (lawful_but(|bytes| bytes[3] = 0x80), Malformed::UnknownOpcode { opcode: 0x8000 | opcode }),
        (lawful_but(|bytes| bytes[3] = 0x40), Malformed::UnknownOpcode { opcode: 0x4000 | opcode }),
        (
            lawful_but(|bytes| bytes[12] += 1),
            Malformed::LengthWrong { said: body_bytes + 1, found: body_bytes },
        ),
        (
            lawful_but(|bytes| bytes[12..16].fill(255)),
            Malformed::LengthWrong { said: u32::MAX, found: body_bytes },
        ),
        (lawful_but(|bytes| bytes[7] = 1), Malformed::ReservedUsed { found: 256 }),
        (lawful_but(|bytes| bytes[16] = 255), Malformed::BodyUnreadable { opcode }),
        (
            lawful_but(|bytes| {
                bytes.push(0);
                bytes[12] += 1;
            }),
            Malformed::BytesLeft { opcode, bytes: 1 },
        ),
        (lawful_but(|bytes| bytes[4] = 1), Malformed::DescriptorsWrong { said: 1, found: 0 }),
        (lawful_but(|bytes| bytes[4..6].fill(255)), Malformed::DescriptorsWrong { said: u16::MAX, found: 0 }),
    ]
}

#[test]
fn every_malformed_frame_ends_its_session_by_name_and_no_other() {
    let mut scene = Scene::begin();
    let mut seen = [false; PLACES];
    for (bytes, malformed) in broken_frames() {
        let offender = scene.offender();
        offender.send(&bytes);
        scene.ends(offender, Farewell::Malformed(malformed));
        seen[place(malformed)] = true;
    }
    assert_eq!(seen, [true; PLACES], "each variant has its frame");
}

#[test]
fn a_malformed_first_frame_is_named_too() {
    let mut scene = Scene::begin();
    let offender = Session::silent(&scene.path);
    offender.send(&[1, 2, 3]);
    scene.ends(offender, Farewell::Malformed(Malformed::TooShort { bytes: 3, bytes_min: 16 }));
}

#[test]
fn an_empty_frame_is_too_short_and_not_an_end() {
    let mut scene = Scene::begin();
    let offender = scene.offender();
    let socket = UnixDatagram::from(offender.socket.try_clone().unwrap());
    assert_eq!(socket.send(&[]).unwrap(), 0);
    scene.ends(offender, Farewell::Malformed(Malformed::TooShort { bytes: 0, bytes_min: 16 }));
}

#[test]
fn frames_behind_a_broken_one_are_never_handled() {
    let mut scene = Scene::begin();
    let mut offender = scene.offender();
    let (bytes_after, broken) = (
        offender.frame(request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() }),
        [0; 16],
    );
    offender.send(&broken);
    let _ = frame::send_frame(&offender.socket, &bytes_after, &[], Waiting::DontWait);
    let malformed = Malformed::UnknownVersion { found: 0, spoken: PROTOCOL_VERSION };
    scene.ends(offender, Farewell::Malformed(malformed));
}

/// Numbers from a seed (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll() as u8).collect()
    }

    /// Noise, or a lawful header before noise, or a lawful frame with a few bits turned.
    fn garbage(&mut self) -> Vec<u8> {
        let length = 1 + self.below(300);
        let noise = self.bytes(length);
        match self.below(3) {
            0 => noise,
            1 => {
                let opcode = 1 + self.below(30) as u16;
                let mut bytes = PROTOCOL_VERSION.to_le_bytes().to_vec();
                bytes.extend_from_slice(&opcode.to_le_bytes());
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(&(self.roll() as u32).to_le_bytes());
                let body = &noise[..noise.len().min(1 + self.below(24))];
                bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
                bytes.extend_from_slice(body);
                bytes
            }
            _ => lawful_but(|bytes| {
                for _ in 0..=self.below(3) {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }
            }),
        }
    }
}

#[test]
fn garbage_ends_its_session_or_is_answered_and_the_broker_lives() {
    let mut scene = Scene::begin();
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let offender = scene.offender();
        for _ in 0..8 {
            let bytes = dice.garbage();
            if frame::send_frame(&offender.socket, &bytes, &[], Waiting::DontWait).is_err() {
                break;
            }
        }
        let heard = offender.hear_within(Duration::from_secs(20));
        match heard.unwrap_or_else(|| panic!("seed {seed}: neither an answer nor an end")) {
            Heard::Frame(Incoming::Reply(..) | Incoming::Event(_), _) | Heard::End => {}
        }
    }
    scene.bystander.is_served();
    assert_eq!(scene.bystander.processes().len(), 1);
}
