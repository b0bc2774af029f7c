//! The guest's half of the dialogue with the host.

use std::{
    fs::File,
    io::{Read, Write},
};

use anyhow::{Context, Result, bail};
use keyway_vm::protocol::{Answer, Line, Told};

/// The port to the host. Of the processes that have it, one speaks at a time.
pub struct Dialogue {
    port: File,
    /// What came after the last line.
    rest: Vec<u8>,
    count: u32,
}

impl Dialogue {
    pub fn over(port: File) -> Self {
        Dialogue { port, rest: Vec::new(), count: 0 }
    }

    /// The port, for another process.
    pub fn port(&self) -> Result<File> {
        Ok(self.port.try_clone()?)
    }

    /// Says something that is answered by "done"; the host's reason is the error.
    pub fn tell(&mut self, told: Told) -> Result<()> {
        match self.ask(told)? {
            Answer::Done => Ok(()),
            other => bail!("the host answered something else: {other:?}"),
        }
    }

    /// Says something and waits for the answer; the host's reason why it is not so is the error.
    pub fn ask(&mut self, told: Told) -> Result<Answer> {
        self.count += 1;
        // No other process has the same numbers.
        let number = u64::from(std::process::id()) << 32 | u64::from(self.count);
        let line = serde_json::to_string(&Line { number, says: told })?;
        // Whoever wrote before may have been killed in the middle of a line.
        self.port.write_all(format!("\n{line}\n").as_bytes()).context("the host is not there")?;
        loop {
            let heard = self.line()?;
            match serde_json::from_slice::<Line<Answer>>(&heard) {
                Ok(Line { number: heard, says }) if heard == number => {
                    return match says {
                        Answer::Wrong { why } => bail!(why),
                        answer => Ok(answer),
                    };
                }
                // For somebody who was killed while waiting.
                _ => {}
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Ok(self.rest.drain(..=end).collect());
            }
            let mut bytes = [0; 4096];
            let count = self.port.read(&mut bytes)?;
            if count == 0 {
                bail!("the host is gone");
            }
            self.rest.extend(&bytes[..count]);
        }
    }
}
