//! A client of the seatd protocol that writes its bytes itself: what `libseat` would, and what it would not.

use std::{
    fs::File,
    io::{IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Where the door is.
pub const SEATD_SOCKET: &str = "/run/seatd.sock";

const OPEN_SEAT: u16 = 1;
const CLOSE_SEAT: u16 = 2;
const OPEN_DEVICE: u16 = 3;
const CLOSE_DEVICE: u16 = 4;
const DISABLE_SEAT: u16 = 5;
const SWITCH_SESSION: u16 = 6;
const PING: u16 = 7;
const SEAT_OPENED: u16 = 0x8001;
const SEAT_CLOSED: u16 = 0x8002;
const DEVICE_OPENED: u16 = 0x8003;
const DEVICE_CLOSED: u16 = 0x8004;
const DISABLE: u16 = 0x8005;
const ENABLE: u16 = 0x8006;
const PONG: u16 = 0x8007;
const SESSION_SWITCHED: u16 = 0x8008;
const SEAT_DISABLED: u16 = 0x8009;
const ERROR: u16 = 0xffff;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Libseat(UnixStream);

impl Libseat {
    /// Connects and opens the seat.
    pub fn open() -> Result<Self> {
        Self::open_at(Path::new(SEATD_SOCKET))
    }

    /// The same, of another door.
    pub fn open_at(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut seat = Libseat(stream);
        seat.ask(OPEN_SEAT, &[])?;
        seat.expect(SEAT_OPENED)?;
        Ok(seat)
    }

    /// Waits until it has the seat.
    pub fn await_enabled(&mut self) -> Result<()> {
        self.expect(ENABLE).map(drop)
    }

    /// A descriptor of a device, and its number.
    pub fn open_device(&mut self, path: &Path) -> Result<(i32, OwnedFd)> {
        let path = path.to_str().context("a path of text")?;
        let length = u16::try_from(path.len() + 1)?;
        self.ask(OPEN_DEVICE, &[&length.to_ne_bytes(), path.as_bytes(), &[0]].concat())?;
        let (opcode, body, descriptor) = self.hear()?;
        match (opcode, descriptor) {
            (DEVICE_OPENED, Some(descriptor)) => Ok((number(&body)?, descriptor)),
            (ERROR, None) => bail!(std::io::Error::from_raw_os_error(number(&body)?)),
            other => bail!("opened {path}, and heard {other:?}"),
        }
    }

    pub fn close_device(&mut self, number: i32) -> Result<()> {
        self.ask(CLOSE_DEVICE, &number.to_ne_bytes())?;
        self.expect(DEVICE_CLOSED).map(drop)
    }

    pub fn close_seat(&mut self) -> Result<()> {
        self.ask(CLOSE_SEAT, &[])?;
        self.expect(SEAT_CLOSED).map(drop)
    }

    /// There and back.
    pub fn ping(&mut self) -> Result<()> {
        self.ask(PING, &[])?;
        self.expect(PONG).map(drop)
    }

    /// Lets another session have the seat, and is told to pause; whether it does is its own affair.
    pub fn switch(&mut self, session: i32) -> Result<()> {
        self.ask(SWITCH_SESSION, &session.to_ne_bytes())?;
        self.expect(SESSION_SWITCHED)?;
        self.expect(DISABLE).map(drop)
    }

    /// Says that it has paused.
    pub fn acknowledge(&mut self) -> Result<()> {
        self.ask(DISABLE_SEAT, &[])?;
        self.expect(SEAT_DISABLED).map(drop)
    }

    fn ask(&mut self, opcode: u16, body: &[u8]) -> Result<()> {
        let size = u16::try_from(body.len())?;
        Ok(self.0.write_all(&[&opcode.to_ne_bytes(), &size.to_ne_bytes(), body].concat())?)
    }

    fn expect(&mut self, expected: u16) -> Result<Vec<u8>> {
        let (opcode, body, _) = self.hear()?;
        if opcode == ERROR {
            bail!(std::io::Error::from_raw_os_error(number(&body)?));
        }
        ensure!(opcode == expected, "heard {opcode:#x} instead of {expected:#x}");
        Ok(body)
    }

    /// The next message, with the descriptor that came with it.
    fn hear(&mut self) -> Result<(u16, Vec<u8>, Option<OwnedFd>)> {
        let mut header = [0; 4];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let count =
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut header)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        ensure!(count.bytes > 0, "the seat has let it go");
        let mut descriptor = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.last();
            }
        }
        self.0.read_exact(&mut header[count.bytes..])?;
        let [a, b, c, d] = header;
        let mut body = vec![0; usize::from(u16::from_ne_bytes([c, d]))];
        self.0.read_exact(&mut body)?;
        Ok((u16::from_ne_bytes([a, b]), body, descriptor))
    }
}

fn number(body: &[u8]) -> Result<i32> {
    Ok(i32::from_ne_bytes(body.try_into().context("a body of 4 bytes")?))
}

/// Whether an input device is dead, within some time.
pub fn dies(device: &mut File) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = [0; 24 * 64];
    while Instant::now() < deadline {
        match device.read(&mut bytes) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                return Ok(());
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    bail!("the input device is still alive")
}
