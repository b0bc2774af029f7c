//! A Unix seqpacket socket pair, blocking: what the kernel offers for messages. Where both sides poll, it is received from without
//! waiting, again and again. A batch is one `sendmmsg(2)`, and what has come one `recvmmsg(2)`.
//!
//! Where a scenario is about connections, sockets that are found by a path: what any system needs at least that begins
//! with a connection. Several senders share one end; several receivers have a connection each.

use std::{
    io, mem,
    ops::Range,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    ptr,
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use crate::{
    Result,
    payload::{Content, LAST},
    place::Place,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Seqpacket;

impl System for Seqpacket {
    fn name(&self) -> &'static str {
        "seqpacket"
    }

    fn rank(&self) -> Rank {
        Rank::Peer
    }

    fn offers(&self, scenario: Scenario) -> bool {
        !matches!(scenario.kind, Kind::Lanes(_) | Kind::IdleLane | Kind::Bridge | Kind::Signal)
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        match (side.scenario().kind, side.role()) {
            (Kind::Connect, Role::Asker) => connect(side),
            (Kind::Connect, Role::Answerer) => accept(side),
            (Kind::FanOut(count), Role::Asker) => {
                let listener = listen(side.place())?;
                side.meet()?;
                let sockets = (0..count).map(|_| net::accept(&listener));
                side.talk(Socket::over(sockets.collect::<std::result::Result<_, _>>()?, side)?)
            }
            (Kind::FanOut(_), Role::Answerer) => {
                side.meet()?;
                side.talk(Socket::over(vec![dial(side.place())?], side)?)
            }
            _ => side.talk(Socket::over(vec![side.socket().try_clone_to_owned()?], side)?),
        }
    }
}

/// The asker connects and sends a message, over and over, each time anew.
fn connect(side: &Side) -> Result<()> {
    side.meet()?;
    let trip = |number| {
        let mut socket = Socket::over(vec![dial(side.place())?], side)?;
        socket.send(number)?;
        Ok(socket)
    };
    side.measure_trips(trip)?;
    trip(LAST)?;
    side.meet()
}

fn accept(side: &Side) -> Result<()> {
    let listener = listen(side.place())?;
    side.meet()?;
    while Socket::over(vec![net::accept(&listener)?], side)?.receive()? != LAST {}
    side.meet()
}

fn address(place: &Place) -> Result<SocketAddrUnix> {
    let path: PathBuf = place.directory().join("seqpacket.sock");
    // Of an earlier run, if there is one.
    let _ = std::fs::remove_file(&path);
    Ok(SocketAddrUnix::new(path)?)
}

fn socket() -> Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn listen(place: &Place) -> Result<OwnedFd> {
    let listener = socket()?;
    net::bind(&listener, &address(place)?)?;
    net::listen(&listener, 16)?;
    Ok(listener)
}

fn dial(place: &Place) -> Result<OwnedFd> {
    let socket = socket()?;
    net::connect(&socket, &SocketAddrUnix::new(place.directory().join("seqpacket.sock"))?)?;
    Ok(socket)
}

/// One end, or the sender's end of several.
struct Socket {
    sockets: Vec<OwnedFd>,
    content: Content,
    /// Of one batch.
    buffer: Vec<u8>,
    polls: bool,
}

impl Socket {
    fn over(sockets: Vec<OwnedFd>, side: &Side) -> Result<Self> {
        let content = side.content();
        for socket in &sockets {
            // A message must fit into it whole; four of a large one, so that neither side waits for each. Without
            // privilege the system's own limit holds, and then large messages have no cell.
            let bytes = (4 * content.bytes).max(SOCKET_BYTES_MIN);
            sockopt::set_socket_send_buffer_size_force(socket.as_fd(), bytes)
                .or_else(|_| sockopt::set_socket_send_buffer_size(socket.as_fd(), bytes))?;
        }
        let polls = matches!(side.scenario().kind, Kind::RoundTrip(Waiting::Spinning));
        let buffer = vec![0; content.bytes * side.scenario().batch.max(1)];
        Ok(Self { sockets, content, buffer, polls })
    }

    /// Describes the first `count` messages of the buffer to Linux, has it move them, and answers how many it did.
    fn pass(
        &mut self,
        count: usize,
        call: impl FnOnce(i32, *mut libc::mmsghdr, u32) -> i32,
    ) -> Result<usize> {
        let count = count.min(BATCH_MAX);
        // SAFETY: all zero is an empty message without a name, and an empty piece of memory.
        let mut headers: [libc::mmsghdr; BATCH_MAX] = unsafe { mem::zeroed() };
        let mut pieces = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH_MAX];
        let messages = self.buffer.chunks_exact_mut(self.content.bytes);
        for ((header, piece), message) in headers.iter_mut().zip(&mut pieces).zip(messages).take(count) {
            *piece = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: message.len() };
            header.msg_hdr.msg_iov = piece;
            header.msg_hdr.msg_iovlen = 1;
        }
        let done = call(self.sockets[0].as_raw_fd(), headers.as_mut_ptr(), count as u32);
        usize::try_from(done).map_err(|_| io::Error::last_os_error().into())
    }
}

/// Messages of a batch, at most.
const BATCH_MAX: usize = 32;

/// What Linux gives a socket by default.
const SOCKET_BYTES_MIN: usize = 212_992;

impl Port for Socket {
    fn send(&mut self, number: u64) -> Result<()> {
        let message = &mut self.buffer[..self.content.bytes];
        self.content.fill(message, number);
        for socket in &self.sockets {
            net::send(socket, message, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        let message = &mut self.buffer[..self.content.bytes];
        let flags = if self.polls { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        loop {
            match net::recv(&self.sockets[0], &mut *message, flags) {
                Ok((received_bytes, _)) => return self.content.judge(&message[..received_bytes]),
                Err(Errno::AGAIN) if self.polls => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send_batch(&mut self, numbers: Range<u64>) -> Result<()> {
        let count = (numbers.end - numbers.start) as usize;
        for (message, number) in self.buffer.chunks_exact_mut(self.content.bytes).zip(numbers) {
            self.content.fill(message, number);
        }
        // SAFETY: so many messages are described there, each in the buffer, which nobody else has.
        let sent = self.pass(count, |socket, messages, count| unsafe {
            libc::sendmmsg(socket, messages, count, libc::MSG_NOSIGNAL)
        })?;
        if sent == count { Ok(()) } else { Err(format!("{sent} of {count} messages were sent").into()) }
    }

    fn receive_batch(&mut self, most: usize, take: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        let bytes = self.content.bytes;
        let most = most.min(self.buffer.len() / bytes);
        if most == 1 {
            return take(self.receive()?);
        }
        // SAFETY: as in `send_batch`; without a timeout none is read.
        let received = self.pass(most, |socket, messages, count| unsafe {
            libc::recvmmsg(socket, messages, count, libc::MSG_WAITFORONE, ptr::null_mut())
        })?;
        for message in self.buffer.chunks_exact(bytes).take(received) {
            take(self.content.judge(message)?)?;
        }
        Ok(())
    }
}
