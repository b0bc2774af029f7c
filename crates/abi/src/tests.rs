//! The figures and the words that other languages, logs and people rely on.

use alloc::{format, string::ToString, vec::Vec};

use crate::{
    Badge, CapabilityLimit, Denial, Handle, Kind, LaneId, MappingId, Name, Payer, ProcessNumber, QueueOrder,
    Quota, Rights, Sharer, Signal, SignalSet, Ticket, layout, limits,
};

const HANDLE: Handle = Handle::new(3, 9);

fn name() -> Name {
    Name::new("org.example").expect("a lawful name")
}

/// Each denial with its number, its name and its errno.
fn denials() -> Vec<(Denial, u32, &'static str, i32)> {
    alloc::vec![
        (Denial::UnknownHandle { handle: HANDLE }, 1, "UnknownHandle", 22),
        (Denial::StaleHandle { handle: HANDLE }, 2, "StaleHandle", 22),
        (Denial::WrongKind { handle: HANDLE, needed: Kind::Queue, found: Kind::Queue }, 3, "WrongKind", 22),
        (
            Denial::MissingRights { handle: HANDLE, needed: Rights::SEND, held: Rights::SEND },
            4,
            "MissingRights",
            1
        ),
        (Denial::RightsExceeded { asked: Rights::SEND, held: Rights::SEND }, 5, "RightsExceeded", 1),
        (Denial::BadgeFixed { asked: Badge(7), held: Badge(7) }, 6, "BadgeFixed", 22),
        (Denial::DepthExceeded { depth: 65, depth_max: 65 }, 7, "DepthExceeded", 22),
        (Denial::ReceiveBound, 8, "ReceiveBound", 1),
        (
            Denial::QuotaExceeded { quota: Quota::Lanes, of: Payer::User, asked: 9, used: 9, max: 9 },
            9,
            "QuotaExceeded",
            12
        ),
        (Denial::InvalidSize { asked: 9, min: 9, max: 9 }, 10, "InvalidSize", 22),
        (Denial::InvalidCount { asked: 9, max: 9 }, 11, "InvalidCount", 22),
        (Denial::ObjectEnded { kind: Kind::Queue }, 12, "ObjectEnded", 32),
        (Denial::ProcessEnded { process: ProcessNumber(9) }, 13, "ProcessEnded", 3),
        (Denial::SendersExceeded { senders_max: 9 }, 14, "SendersExceeded", 11),
        (Denial::ShareExceeded { who: Sharer::User, share: 9, senders_max: 9 }, 31, "ShareExceeded", 11),
        (Denial::StockEmpty, 15, "StockEmpty", 11),
        (Denial::ReceiverFull { quota: Quota::Lanes }, 16, "ReceiverFull", 11),
        (Denial::NameTaken { name: name() }, 17, "NameTaken", 17),
        (Denial::NameUnknown { name: name() }, 18, "NameUnknown", 2),
        (Denial::NameRefused { name: name() }, 19, "NameRefused", 13),
        (Denial::NameForbidden { name: name(), verb: Rights::SEND }, 60, "NameForbidden", 13),
        (Denial::UnknownLane { lane: LaneId(9) }, 20, "UnknownLane", 22),
        (Denial::WrongEnd { lane: LaneId(9) }, 21, "WrongEnd", 22),
        (Denial::LaneEnded { lane: LaneId(9) }, 22, "LaneEnded", 32),
        (Denial::AlreadyMapped, 23, "AlreadyMapped", 22),
        (Denial::UnknownMapping { mapping: MappingId(9) }, 24, "UnknownMapping", 22),
        (Denial::RegionUnwritten, 25, "RegionUnwritten", 11),
        (Denial::WriterTaken, 26, "WriterTaken", 13),
        (Denial::UnknownTicket { lane: LaneId(9), ticket: Ticket(9) }, 27, "UnknownTicket", 22),
        (Denial::Revoking { handle: HANDLE }, 28, "Revoking", 16),
        (Denial::Expired { handle: HANDLE, expired_ns: 9, now_ns: 9 }, 32, "Expired", 22),
        (Denial::ExpiryPast { asked_ns: 9, now_ns: 9 }, 33, "ExpiryPast", 22),
        (Denial::ExpiryExceeded { asked_ns: 9, held_ns: 9 }, 34, "ExpiryExceeded", 1),
        (Denial::LimitExceeded { limit: CapabilityLimit::Opens, asked: 9, held: 9 }, 61, "LimitExceeded", 1),
        (
            Denial::LimitReached { handle: HANDLE, limit: CapabilityLimit::Opens, asked: 9, used: 9, max: 9 },
            62,
            "LimitReached",
            11
        ),
        (Denial::RootBound { kind: Kind::Queue }, 35, "RootBound", 1),
        (Denial::InvalidFlags { asked: 9, bytes: 9 }, 36, "InvalidFlags", 22),
        (Denial::NotFreezable, 37, "NotFreezable", 13),
        (Denial::Pinned, 38, "Pinned", 16),
        (Denial::SealedByOther, 39, "SealedByOther", 13),
        (Denial::NotFrozen, 44, "NotFrozen", 11),
        (Denial::NotWriter { mapping: MappingId(9) }, 45, "NotWriter", 13),
        (Denial::WrongSharing { shared: true }, 46, "WrongSharing", 13),
        (Denial::DeniedByList { handle: HANDLE, denied: Rights::SEND }, 50, "DeniedByList", 13),
        (
            Denial::InvalidPermissions { asked: Rights::SEND, possible: Rights::SEND },
            51,
            "InvalidPermissions",
            22
        ),
        (Denial::InvalidExecutable { bytes: 9, bytes_max: 9 }, 52, "InvalidExecutable", 22),
        (Denial::UnknownAclEntry { number: 9 }, 53, "UnknownAclEntry", 22),
        (Denial::SystemRefused { errno: 12 }, 29, "SystemRefused", 12),
        (
            Denial::VersionUnsupported { version_min: 9, version_max: 9, version: 9 },
            30,
            "VersionUnsupported",
            93
        ),
        (Denial::InvalidSignal { asked: 12 }, 40, "InvalidSignal", 22),
        (Denial::SignalQueueFull { of: Payer::User, max: 9 }, 41, "SignalQueueFull", 11),
        (Denial::Unsupported { signal: Signal::TERM }, 42, "Unsupported", 95),
        (Denial::SignalBound { signal: Signal::TERM }, 43, "SignalBound", 22),
        (Denial::LaneUnopened { lane: LaneId(9) }, 63, "LaneUnopened", 11),
        (Denial::DoorbellExists { peer: ProcessNumber(9) }, 64, "DoorbellExists", 17),
    ]
}

#[test]
fn each_denial_has_its_number_its_name_and_its_errno() {
    for (denial, number, name, errno) in denials() {
        assert_eq!((denial.number(), denial.errno()), (number, errno), "{name}");
        assert_eq!(Denial::name_of(number), Some(name));
        assert!(format!("{denial:?}").starts_with(name));
        assert!(denial.to_string().len() > 15, "{denial}");
    }
    let mut known: Vec<u32> = denials().into_iter().map(|(_, number, ..)| number).collect();
    known.sort_unstable();
    let named: Vec<u32> = (0..1000).filter(|number| Denial::name_of(*number).is_some()).collect();
    assert_eq!(named, known, "no number without a denial, and none twice");
    let limit = CapabilityLimit::RingBytes;
    let too_high =
        Denial::LimitReached { handle: HANDLE, limit: CapabilityLimit::Priority, asked: 7, used: 0, max: 2 };
    assert_eq!(too_high.errno(), 1, "nor will it help here");
    assert!(
        too_high.to_string().contains("allows 2 levels of priority, 0 in use, 7 asked for"),
        "{too_high}"
    );
    let too_large = Denial::LimitReached { handle: HANDLE, limit, asked: 9, used: 0, max: 8 };
    assert_eq!(too_large.errno(), 1, "it will not help to try again");
}

#[test]
fn denials_say_what_was_asked_and_what_stood_against_it() {
    let full = Denial::QuotaExceeded { quota: Quota::Lanes, of: Payer::User, asked: 1, used: 7, max: 7 };
    assert_eq!(
        full.to_string(),
        "7 lanes in use by this user's processes, 1 more asked for, the limit is 7; give some back first"
    );
    let share = Denial::ShareExceeded { who: Sharer::Process, share: 30, senders_max: 120 };
    assert!(share.to_string().starts_with("this process has its 30 of the queue's 120 lanes"));
    let limit = Denial::LimitExceeded { limit: CapabilityLimit::Opens, asked: 4, held: 3 };
    assert!(limit.to_string().contains("allows 4 lanes or mappings from one that allows 3"), "{limit}");
    let quotas = [
        (Quota::Handles, "capabilities"),
        (Quota::Objects, "objects"),
        (Quota::Bytes, "bytes of shared memory"),
        (Quota::Descriptors, "descriptors"),
        (Quota::Mappings, "mappings"),
        (Quota::Escrow, "capabilities in escrow"),
        (Quota::Watches, "watched processes"),
        (Quota::Names, "published names"),
        (Quota::Pages, "broker pages"),
        (Quota::Sessions, "sessions"),
        (Quota::AclEntries, "entries of the access list"),
        (Quota::NameWaits, "names waited for"),
        (Quota::Derivations, "derived capabilities"),
        (Quota::Requests, "requests under way"),
    ];
    for (quota, words) in quotas {
        assert_eq!(quota.to_string(), words);
    }
    assert_eq!(Payer::Everyone.to_string(), "all processes of this broker");
    assert_eq!(Payer::Process.to_string(), "this process");
    assert_eq!(Sharer::User.to_string(), "user");
    assert_eq!(CapabilityLimit::RingBytes.to_string(), "bytes of a ring");
    let orders = [QueueOrder::Fair, QueueOrder::Priority, QueueOrder::Arrival].map(|order| order.to_string());
    assert_eq!(orders, ["fair", "by priority", "by arrival"]);
}

#[test]
fn a_handle_is_a_slot_and_a_generation() {
    assert_eq!((HANDLE.slot(), HANDLE.generation(), HANDLE.raw()), (3, 9, 9 << 32 | 3));
    assert_eq!(Handle::from_raw(HANDLE.raw()), HANDLE);
    assert_eq!((HANDLE.to_string(), format!("{HANDLE:?}")), ("3.9".into(), "Handle(3.9)".into()));
    let last = Handle::new(u32::MAX, u32::MAX);
    assert_eq!((last.slot(), last.generation()), (u32::MAX, u32::MAX));
}

#[test]
fn names_kinds_and_rights_are_shown_as_they_are_written() {
    assert_eq!(
        (name().to_string(), format!("{:?}", name())),
        ("org.example".into(), "\"org.example\"".into())
    );
    let kinds = [Kind::Queue, Kind::Region, Kind::Process, Kind::Device, Kind::Directory, Kind::ServiceName];
    let words = kinds.map(|kind| kind.to_string());
    assert_eq!(words, ["queue", "region", "process", "device", "directory", "service-name"]);
    assert_eq!(Rights::empty().to_string(), "none");
    assert_eq!(Rights::SEND.to_string(), "send");
    assert_eq!((Rights::DERIVE | Rights::GRANT | Rights::SEND).to_string(), "derive+grant+send");
}

#[test]
fn signals_make_sets() {
    let (kill, term, stop) = (Signal::KILL, Signal::TERM, Signal::STOP);
    assert_eq!([kill, stop, term].map(Signal::is_bound), [true, true, false]);
    assert_eq!((u8::from(term), format!("{term:?}")), (15, "Signal(15)".into()));
    let (one, two) = (SignalSet::from(term), SignalSet::EMPTY.with(term).with(kill));
    assert_eq!(one.with(term), one);
    assert_eq!((one.union(two), two.union(one), one.union(one)), (two, two, one));
    assert_eq!((one.intersection(two), two.difference(one)), (one, SignalSet::from(kill)));
    assert_eq!(one.intersection(SignalSet::from(kill)), SignalSet::EMPTY);
    assert_eq!([SignalSet::EMPTY, one].map(SignalSet::is_empty), [true, false]);
    assert_eq!(two.without(kill), one);
    assert_eq!(format!("{two:?}"), "{9, 15}");
}

#[test]
fn layouts_and_limits_have_the_figures_that_are_written_of_them() {
    assert_eq!((layout::RING_BYTES_MIN, layout::RING_BYTES_MAX), (4096, 1_073_741_824));
    assert_eq!((layout::PAGE_BYTES, layout::WORDS_PER_PAGE), (4096, 1024));
    assert_eq!((limits::PROCESS_BYTES_MAX, limits::USER_BYTES_MAX), (1_073_741_824, 4_294_967_296));
    assert_eq!((limits::OBJECTS_MAX, limits::USER_OBJECTS_MAX), (1024, 16_384));
    assert_eq!((limits::HANDLES_MAX, limits::USER_HANDLES_MAX), (4096, 65_536));
    assert_eq!((limits::MAPPINGS_MAX, limits::USER_MAPPINGS_MAX), (1024, 16_384));
    assert_eq!((limits::NAMES_MAX, limits::USER_NAMES_MAX), (64, 1024));
    assert_eq!(
        (limits::QUEUE_SENDERS_MAX, limits::QUEUE_SENDERS_DEFAULT, limits::TABLE_MAX),
        (16_384, 120, 65_536)
    );
    assert_eq!((limits::ACKS_MAX, limits::STOCK_MAX), (16, 64));
    assert_eq!((limits::LANES_MAX, limits::USER_LANES_MAX), (1024, 16_384));
    assert_eq!((limits::DERIVATIONS_MAX, limits::USER_DERIVATIONS_MAX), (8192, 131_072));
    assert_eq!((limits::REQUESTS_MAX, limits::USER_REQUESTS_MAX), (64, 1024));
    assert_eq!((limits::PAGES_MAX, limits::USER_PAGES_MAX, limits::EVERYONE_PAGES_MAX), (128, 1024, 32_768));
    assert_eq!(limits::RING_BYTES_DEFAULT, 65_536);
    assert_eq!((limits::REGION_BYTES_MAX, limits::HUGE_PAGE_BYTES), (1_073_741_824, 2_097_152));
}
