//! Pipes with a name: what the kernel offers for bytes.
//!
//! One for each direction, made as large as Linux lets anyone make it. A message is one write; a batch is one as well, and
//! the reader of batches takes whatever is there. Where both sides poll, they read without waiting, again and again. Several senders share one pipe, where writes of up to 4 KiB do not mix;
//! several receivers have one each.

use std::{
    any::Any,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    ops::Range,
    path::PathBuf,
};

use rustix::{
    fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat},
    pipe::fcntl_setpipe_size,
};

use crate::{
    Result,
    payload::Content,
    place::Place,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Pipe;

impl System for Pipe {
    fn name(&self) -> &'static str {
        "pipe"
    }

    fn rank(&self) -> Rank {
        Rank::Peer
    }

    fn offers(&self, scenario: Scenario) -> bool {
        matches!(
            scenario.kind,
            Kind::RoundTrip(_) | Kind::OneWay | Kind::Bulk(_) | Kind::FanIn(_) | Kind::FanOut(_)
        )
    }

    fn prepare(&self, scenario: Scenario, place: &Place) -> Result<Box<dyn Any>> {
        let names = (0..scenario.answerers()).map(|index| path(place, index));
        let fifos = Fifos(names.chain([back(place)]).collect());
        for path in &fifos.0 {
            mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?;
        }
        Ok(Box::new(fifos))
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        // Opened for both ways, so that nobody waits for the other side to open it.
        let open = |path: PathBuf| -> Result<File> {
            let file = File::options().read(true).write(true).open(path)?;
            fcntl_setpipe_size(&file, PIPE_BYTES)?;
            Ok(file)
        };
        let (outgoing, incoming) = match side.role() {
            Role::Asker => {
                let all = (0..side.scenario().answerers()).map(|index| open(path(side.place(), index)));
                (all.collect::<Result<_>>()?, open(back(side.place()))?)
            }
            Role::Answerer => (vec![open(back(side.place()))?], open(path(side.place(), side.index()))?),
        };
        if matches!(side.scenario().kind, Kind::RoundTrip(Waiting::Spinning)) {
            fcntl_setfl(&incoming, fcntl_getfl(&incoming)? | OFlags::NONBLOCK)?;
        }
        let content = side.content();
        let buffer = vec![0; content.bytes * side.scenario().batch];
        let received = buffer.clone();
        side.talk(Ends { content, outgoing, incoming, buffer, received, received_bytes: 0 })
    }
}

/// What an unprivileged process may ask for, if nobody changed it (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES: usize = 1 << 20;

fn path(place: &Place, answerer: usize) -> PathBuf {
    place.directory().join(format!("pipe-{answerer}"))
}

fn back(place: &Place) -> PathBuf {
    place.directory().join("pipe-back")
}

/// Removed when it is dropped.
struct Fifos(Vec<PathBuf>);

impl Drop for Fifos {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

struct Ends {
    content: Content,
    outgoing: Vec<File>,
    incoming: File,
    buffer: Vec<u8>,
    /// What was read and not taken begins here.
    received: Vec<u8>,
    received_bytes: usize,
}

impl Port for Ends {
    fn send(&mut self, number: u64) -> Result<()> {
        let message = &mut self.buffer[..self.content.bytes];
        self.content.fill(message, number);
        for pipe in &mut self.outgoing {
            pipe.write_all(message)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        let message = &mut self.received[..self.content.bytes];
        while self.received_bytes < message.len() {
            match self.incoming.read(&mut message[self.received_bytes..]) {
                Ok(0) => return Err("the pipe has ended".into()),
                Ok(read_bytes) => self.received_bytes += read_bytes,
                // Only where both sides poll.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.received_bytes = 0;
        self.content.judge(message)
    }

    fn send_batch(&mut self, numbers: Range<u64>) -> Result<()> {
        let bytes = (numbers.end - numbers.start) as usize * self.content.bytes;
        for (message, number) in self.buffer.chunks_exact_mut(self.content.bytes).zip(numbers) {
            self.content.fill(message, number);
        }
        for pipe in &mut self.outgoing {
            pipe.write_all(&self.buffer[..bytes])?;
        }
        Ok(())
    }

    fn receive_batch(&mut self, most: usize, take: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        if most == 1 {
            return take(self.receive()?);
        }
        while self.received_bytes < self.content.bytes {
            let read_bytes = self.incoming.read(&mut self.received[self.received_bytes..])?;
            if read_bytes == 0 {
                return Err("the pipe has ended".into());
            }
            self.received_bytes += read_bytes;
        }
        let whole_bytes = self.received_bytes / self.content.bytes * self.content.bytes;
        for message in self.received[..whole_bytes].chunks_exact(self.content.bytes) {
            take(self.content.judge(message)?)?;
        }
        self.received.copy_within(whole_bytes..self.received_bytes, 0);
        self.received_bytes -= whole_bytes;
        Ok(())
    }
}
