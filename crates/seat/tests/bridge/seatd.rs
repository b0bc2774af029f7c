//! The seatd door over its socket, by a client that writes the protocol's bytes itself.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use keyway::{
    Client, Embedded,
    bridge::{BridgeEvent, DenialReason, Event, SessionId},
};
use keyway_gui::limits::PAUSE_TIMEOUT_NS;
use keyway_seat::{Options, Seat, SeatError, SeatdError};

use crate::{
    compositor::{await_end, keyboard},
    stage::{PATIENCE, Stage, eventually, next_event},
};

const OPEN_SEAT: u16 = 1;
const CLOSE_SEAT: u16 = 2;
const OPEN_DEVICE: u16 = 3;
const CLOSE_DEVICE: u16 = 4;
const DISABLE_SEAT: u16 = 5;
const SWITCH_SESSION: u16 = 6;
const PING: u16 = 7;
const SEAT_OPENED: u16 = 0x8001;
const SEAT_CLOSED: u16 = 0x8002;
const DISABLE: u16 = 0x8005;
const ENABLE: u16 = 0x8006;
const PONG: u16 = 0x8007;
const SESSION_SWITCHED: u16 = 0x8008;
const SEAT_DISABLED: u16 = 0x8009;
const ERROR: u16 = 0xffff;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EBADF: i32 = 9;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;

/// A stage with a door of this kind, in a directory of its own.
struct House {
    stage: Stage,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl House {
    fn begin() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("seatd.sock");
        let options = Options { seatd_socket: Some(socket.clone()), ..Options::default() };
        House { stage: Stage::begin_with(options), socket, _directory: directory }
    }

    fn connect(&self) -> Libseat {
        Libseat::connect(&self.socket)
    }

    /// Somebody who has opened the seat; `is_enabled` if it has it, too.
    fn seated(&self, is_enabled: bool) -> Libseat {
        let mut client = self.connect();
        client.ask(OPEN_SEAT, &[]);
        assert_eq!(client.hear(), (SEAT_OPENED, b"\x06\x00seat0\0".to_vec()));
        if is_enabled {
            assert_eq!(client.hear(), (ENABLE, vec![]));
        }
        client
    }
}

/// The client's side of the protocol.
struct Libseat(UnixStream);

impl Libseat {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Libseat(stream)
    }

    fn ask(&mut self, opcode: u16, body: &[u8]) {
        let bytes = [&opcode.to_ne_bytes(), &(body.len() as u16).to_ne_bytes(), body].concat();
        self.0.write_all(&bytes).unwrap();
    }

    fn ask_number(&mut self, opcode: u16, number: i32) {
        self.ask(opcode, &number.to_ne_bytes());
    }

    fn ask_path(&mut self, path: &str) {
        let bytes = path.len() as u16 + 1;
        self.ask(OPEN_DEVICE, &[&bytes.to_ne_bytes(), path.as_bytes(), &[0]].concat());
    }

    fn try_hear(&mut self) -> io::Result<(u16, Vec<u8>)> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header)?;
        let [a, b, c, d] = header;
        let mut body = vec![0; usize::from(u16::from_ne_bytes([c, d]))];
        self.0.read_exact(&mut body)?;
        Ok((u16::from_ne_bytes([a, b]), body))
    }

    fn hear(&mut self) -> (u16, Vec<u8>) {
        self.try_hear().unwrap()
    }

    fn refusal(&mut self) -> i32 {
        let (opcode, body) = self.hear();
        assert_eq!(opcode, ERROR);
        i32::from_ne_bytes(body.try_into().unwrap())
    }

    fn pings(&mut self) {
        self.ask(PING, &[]);
        assert_eq!(self.hear(), (PONG, vec![]));
    }

    /// Nothing is there that was not heard.
    fn hears_nothing(&mut self) {
        self.pings();
    }

    /// Waits until the bridge lets it go.
    fn is_let_go(&mut self) {
        let mut bytes = [0; 64];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("not let go: {error}"),
            }
        }
    }
}

#[test]
fn a_seat_is_opened_and_closed_and_pings_are_answered() {
    let house = House::begin();
    let mut client = house.connect();
    client.pings();
    client.ask(OPEN_SEAT, &[]);
    // Byte for byte, the seat before that it is enabled.
    let mut bytes = [0; 16];
    client.0.read_exact(&mut bytes).unwrap();
    if cfg!(target_endian = "little") {
        assert_eq!(&bytes, b"\x01\x80\x08\x00\x06\x00seat0\0\x06\x80\x00\x00");
    }
    client.pings();
    client.ask(CLOSE_SEAT, &[]);
    assert_eq!(client.hear(), (SEAT_CLOSED, vec![]));
    client.ask(OPEN_SEAT, &[]);
    assert_eq!((client.hear().0, client.hear().0), (SEAT_OPENED, ENABLE));
}

#[test]
fn what_is_no_device_of_the_seat_is_refused_by_its_errno() {
    let house = House::begin();
    let mut client = house.seated(true);
    let longest = format!("/dev/{}", "x".repeat(250));
    let others =
        ["/dev/null", "/dev", "/etc/passwd", "/dev/dri/../null", "/dev/fd/0", "event0", longest.as_str()];
    for path in others {
        client.ask_path(path);
        assert_eq!(client.refusal(), ENOENT, "{path}");
    }
    for number in [0, 1, -1, i32::MIN] {
        client.ask_number(CLOSE_DEVICE, number);
        assert_eq!(client.refusal(), EBADF);
    }
    for session in [0, -1, 2, i32::MAX, i32::MIN] {
        client.ask_number(SWITCH_SESSION, session);
        assert_eq!(client.refusal(), EINVAL, "{session}");
    }
    client.ask(DISABLE_SEAT, &[]);
    assert_eq!(client.refusal(), EBUSY);
    client.ask_number(SWITCH_SESSION, 1);
    assert_eq!(client.hear(), (SESSION_SWITCHED, vec![]), "to itself");
    client.pings();
}

#[test]
fn sessions_switch_after_the_pause_is_acknowledged_or_its_time_is_over() {
    let house = House::begin();
    let (mut first, mut second) = (house.seated(true), house.seated(false));
    second.hears_nothing();
    second.ask_number(SWITCH_SESSION, 2);
    assert_eq!(second.refusal(), EPERM, "it has not the seat");
    first.ask_number(SWITCH_SESSION, 2);
    assert_eq!((first.hear().0, first.hear().0), (SESSION_SWITCHED, DISABLE));
    second.hears_nothing();
    first.ask(DISABLE_SEAT, &[]);
    assert_eq!(first.hear().0, SEAT_DISABLED);
    assert_eq!(second.hear().0, ENABLE);

    // Back, and this one is not polite.
    second.ask_number(SWITCH_SESSION, 1);
    let begun = Instant::now();
    assert_eq!((second.hear().0, second.hear().0), (SESSION_SWITCHED, DISABLE));
    assert_eq!(first.hear().0, ENABLE);
    let (took, patience) = (begun.elapsed(), Duration::from_nanos(PAUSE_TIMEOUT_NS));
    assert!(took >= patience && took < patience * 5, "{took:?}");
    first.ask_number(SWITCH_SESSION, 2);
    assert_eq!(first.refusal(), EBUSY, "that one owes its pause");
    second.ask(DISABLE_SEAT, &[]);
    assert_eq!(second.hear().0, SEAT_DISABLED, "late");
    first.ask_number(SWITCH_SESSION, 2);
    assert_eq!((first.hear().0, first.hear().0), (SESSION_SWITCHED, DISABLE));
    // A death is an answer too.
    drop(first);
    assert_eq!(second.hear().0, ENABLE);
}

#[test]
fn who_breaks_the_protocol_is_let_go_and_nobody_else_notices() {
    let house = House::begin();
    let mut honest = house.seated(true);
    let breaks: [(&str, &[u8]); 9] = [
        ("no opcode", b"\x00\x00\x00\x00"),
        ("another's opcode", b"\x01\x80\x00\x00"),
        ("a body where there is none", b"\x01\x00\x01\x00"),
        ("no body where there is one", b"\x04\x00\x00\x00"),
        ("a body without end", b"\x03\x00\xff\xff"),
        ("two lengths", b"\x03\x00\x06\x00\x05\x00/a\0\0"),
        ("no NUL", b"\x03\x00\x05\x00\x03\x00/ab"),
        ("a NUL in the middle", b"\x03\x00\x06\x00\x04\x00/\0b\0"),
        ("without a seat", b"\x02\x00\x00\x00"),
    ];
    for (what, bytes) in breaks {
        let mut client = house.connect();
        client.0.write_all(bytes).unwrap();
        client.is_let_go();
        honest.pings();
        println!("{what}");
    }
    let mut twice = house.seated(false);
    twice.ask(OPEN_SEAT, &[]);
    twice.is_let_go();
    // Half a request.
    let mut half = house.connect();
    half.0.write_all(b"\x04\x00\x04").unwrap();
    let begun = Instant::now();
    half.is_let_go();
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    // Asking without reading.
    let mut flood = house.connect();
    flood.0.set_write_timeout(Some(PATIENCE)).unwrap();
    let pings = b"\x07\x00\x00\x00".repeat(1000);
    while flood.0.write_all(&pings).is_ok() {
        honest.pings();
    }
    flood.is_let_go();
    honest.pings();
}

#[test]
fn who_leaves_in_the_middle_of_anything_leaves_nothing() {
    let house = House::begin();
    for bytes in [&b""[..], b"\x01", b"\x01\x00\x00\x00", b"\x01\x00\x00\x00\x03\x00\x10\x00\x0e\x00/dev"] {
        for _ in 0..20 {
            // Those before it may have their places still.
            let _ = house.connect().0.write_all(bytes);
        }
    }
    // Their sessions are over, and their places free: the seat is the next one's.
    eventually("there is a place", || {
        let mut client = house.connect();
        let has_asked = client.0.write_all(b"\x01\x00\x00\x00").is_ok();
        has_asked
            && client.try_hear().is_ok_and(|heard| heard.0 == SEAT_OPENED)
            && client.try_hear().is_ok_and(|heard| heard.0 == ENABLE)
    });
}

#[test]
fn one_user_takes_no_more_places_than_it_has() {
    let house = House::begin();
    let mut seated = house.seated(true);
    let mut crowd: Vec<Libseat> = (0..15).map(|_| house.connect()).collect();
    crowd.iter_mut().for_each(Libseat::pings);
    house.connect().is_let_go();
    seated.pings();
    crowd.pop();
    eventually("a place is free", || {
        let mut client = house.connect();
        client.0.write_all(b"\x07\x00\x00\x00").is_ok() && client.try_hear().is_ok()
    });
}

#[test]
fn a_compositor_of_the_bridges_own_and_sessions_have_the_seat_by_turns() {
    let house = House::begin();
    let (_client, mut bridge) = house.stage.compositor();
    let device = keyboard(&mut bridge);
    let mut input = bridge.request_input_device(device).unwrap();
    let mut session = house.seated(false);
    session.hears_nothing();
    bridge.switch_session(SessionId(2)).unwrap();
    assert_eq!(session.hear().0, ENABLE);
    await_end(&mut input);
    assert!(matches!(next_event(&mut bridge), Event::Revoked { .. }));
    assert_eq!(next_event(&mut bridge), Event::Paused);
    let connector = bridge.connectors().unwrap().remove(0);
    let refused = bridge.set_display_mode(connector.id, connector.modes[0]).unwrap_err();
    assert_eq!(refused.denial_reason(), Some(DenialReason::Other(3)), "{refused}");

    session.ask_number(SWITCH_SESSION, 1);
    assert_eq!((session.hear().0, session.hear().0), (SESSION_SWITCHED, DISABLE));
    session.ask(DISABLE_SEAT, &[]);
    assert_eq!(session.hear().0, SEAT_DISABLED);
    assert_eq!(next_event(&mut bridge), Event::Resumed);
    let BridgeEvent::InputGranted(mut again) = bridge.next_event(PATIENCE).unwrap() else {
        panic!("no input device")
    };
    assert_eq!(again.id(), device);
    assert!(again.read_events(Duration::ZERO).unwrap().is_empty() && !again.has_ended());
    bridge.set_display_mode(connector.id, connector.modes[1]).unwrap();
    // It ends, and the session has the seat.
    bridge.unregister_compositor().unwrap();
    assert_eq!(session.hear().0, ENABLE);
    bridge.register_compositor().unwrap();
    assert_eq!(next_event(&mut bridge), Event::Paused);
    drop(session);
    assert_eq!(next_event(&mut bridge), Event::Resumed);
}

#[test]
fn the_socket_is_for_whom_it_is_and_is_not_taken_from_another() {
    let house = House::begin();
    let mode = house.socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else is named");
    let broker = Embedded::start().unwrap();
    let start = |path: &Path, rules: &[&str]| {
        let owner = Client::over(broker.connect().unwrap()).unwrap();
        let compositors = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        Seat::start(
            &owner,
            Options { seatd_socket: Some(path.to_owned()), compositors, ..Options::default() },
        )
    };
    let taken = start(&house.socket, &[]).unwrap_err();
    assert!(matches!(taken, SeatError::Seatd(SeatdError::Taken { .. })), "{taken}");
    house.seated(true);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    std::fs::write(&path, "a file").unwrap();
    assert!(start(&path, &[]).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    std::fs::remove_file(&path).unwrap();
    // One that nobody listens at any more is taken over; and it is gone with the bridge.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let seat = start(&path, &["user:12345"]).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o666);
    drop(seat);
    assert!(!path.exists());
    let nowhere = start(&directory.path().join("no/such/directory"), &[]).unwrap_err();
    assert!(nowhere.to_string().contains("no/such/directory"), "{nowhere}");
}
