//! What the bridge runs on: real screens and devices, or virtual ones.
//!
//! Real hardware is served by threads of its own, which ring the bridge through a lane of its own process: it waits for them as it
//! waits for its clients.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use keyway::{Client, Queue, QueueOptions, SenderOptions};
use keyway_gui::{
    Facts,
    limits::{CARDS_MAX, CONNECTORS_MAX, DEVICES_MAX},
    protocol::{CardId, DeviceType, Evidence, RenderNode, device_type},
};
use keyway_sys::{
    device::{self, DeviceNumber},
    uevent::Uevents,
};

use crate::{
    drm::{self, Cards, Job},
    evdev::Devices,
    headless::Headless,
    news::{Bell, News},
};

/// Which hardware the bridge is to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Backend {
    /// Real screens and devices where this process can have the screens, else virtual ones.
    Auto,
    /// Real ones.
    Drm,
    /// Two virtual connectors with several modes, a virtual keyboard, pointer and touchscreen.
    #[default]
    Headless,
}

/// Real screens and devices.
#[derive(Debug)]
pub(crate) struct Real {
    /// Rung when there are news. Its messages are empty.
    pub(crate) queue: Queue,
    pub(crate) news: mpsc::Receiver<News>,
    pub(crate) devices: Devices,
    /// The cards, by the numbers of their devices.
    pub(crate) cards: Vec<(DeviceNumber, CardId)>,
    /// What the machine says of itself, its built-in panel included.
    evidence: Evidence,
    /// By which others render.
    pub(crate) render_node: Option<RenderNode>,
    jobs: mpsc::Sender<Job>,
    wake: io::PipeWriter,
    revocations: mpsc::Sender<(u64, OwnedFd)>,
    last_revocation: u64,
    display: Option<JoinHandle<()>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) enum Hardware {
    Headless(Headless),
    Real(Box<Real>),
}

/// Why there is no real hardware to be had.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// No card, or none that this process can have; each with its reason.
    #[error(
        "no screen can be used: {}; run as root, end what has it, or take `--backend headless`",
        if reasons.is_empty() { "the machine has no graphics card (/dev/dri)".to_owned() } else { reasons.join("; ") }
    )]
    NoCard {
        /// What stood against each card.
        reasons: Vec<String>,
    },
    /// Linux refused something else.
    #[error("{0}")]
    Linux(#[from] keyway_sys::Error),
    /// No further thread or pipe.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker refused something.
    #[error("{0}")]
    Keyway(#[from] keyway::Error),
}

impl Hardware {
    /// Looks for what was asked for. `evidence` is what the machine says of itself.
    pub(crate) fn find(
        client: &Client,
        backend: Backend,
        evidence: Evidence,
    ) -> Result<(Self, Facts), HardwareError> {
        let headless = || {
            let (headless, facts) = Headless::new(evidence);
            Ok((Hardware::Headless(headless), facts))
        };
        if backend == Backend::Headless {
            return headless();
        }
        let root = Path::new("/");
        let (cards, reasons) = Cards::open(root);
        match (cards.is_empty(), backend) {
            (true, Backend::Auto) => headless(),
            (true, _) => Err(HardwareError::NoCard { reasons }),
            (false, _) => {
                let (real, facts) = Real::begin(client, cards, Devices::new(root), evidence)?;
                Ok((Hardware::Real(Box::new(real)), facts))
            }
        }
    }
}

impl Real {
    fn begin(
        client: &Client,
        cards: Cards,
        mut devices: Devices,
        evidence: Evidence,
    ) -> Result<(Self, Facts), HardwareError> {
        let evidence = Evidence { panel_diagonal_mm: cards.panel_mm(), ..evidence };
        // Before the devices are looked at, so that none comes in between.
        let uevents = Uevents::open()?;
        let queue = client.create_queue(QueueOptions {
            ring_bytes_max: RING_BYTES,
            senders_max: 2,
            stock: 2,
            ..QueueOptions::default()
        })?;
        let (told, news) = mpsc::channel();
        let options = SenderOptions { ring_bytes: Some(RING_BYTES), ..SenderOptions::default() };
        let bell = || -> Result<Bell<News>, keyway::Error> {
            let capability = queue.sender_capability(None)?;
            let lane = client.open_sender_with(&capability, options)?;
            Ok(Bell::new(told.clone(), lane))
        };
        let (mut display_bell, mut revoker_bell) = (bell()?, bell()?);
        let (mut added, _) = devices.scan();
        let mut connectors = cards.connectors();
        // What is beyond the bridge's bounds is not granted to anybody.
        added.truncate(DEVICES_MAX);
        connectors.truncate(CONNECTORS_MAX);
        let mut numbers = cards.numbers();
        numbers.truncate(CARDS_MAX);
        let facts = Facts {
            connectors,
            cards: numbers.iter().map(|(_, card)| *card).collect(),
            device_type: device_type(&devices.evidence(evidence)),
            devices: added,
            render_node: cards.render_node(),
        };
        let render_node = facts.render_node.clone();
        let (jobs, waiting) = mpsc::channel();
        let (reader, wake) = io::pipe()?;
        let display = thread::Builder::new().name("keyway-display".into()).spawn(move || {
            let _ = drm::serve(cards, &uevents, &waiting, reader, &mut display_bell);
        })?;
        let (revocations, revoked) = mpsc::channel::<(u64, OwnedFd)>();
        thread::Builder::new().name("keyway-revoker".into()).spawn(move || {
            for (number, fd) in revoked {
                // One that is unplugged is dead already.
                let _ = device::revoke_input(&fd);
                revoker_bell.tell(vec![News::Revoked(number)]);
                // To close it waits for some milliseconds: nobody waits for that.
                drop(fd);
            }
        })?;
        let real = Real {
            queue,
            news,
            devices,
            cards: numbers,
            evidence,
            render_node,
            jobs,
            wake,
            revocations,
            last_revocation: 0,
            display: Some(display),
        };
        Ok((real, facts))
    }

    /// What kind of machine this is with the devices that are there now.
    pub(crate) fn device_type(&self) -> DeviceType {
        device_type(&self.devices.evidence(self.evidence))
    }

    /// Whether the thread that has the screens has ended, which it does with the bridge alone.
    pub(crate) fn is_over(&self) -> bool {
        self.display.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Gives the screens something to do.
    pub(crate) fn do_job(&mut self, job: Job) {
        // The thread ends with the bridge alone.
        if self.jobs.send(job).is_ok() {
            let _ = self.wake.write_all(&[0]);
        }
    }

    /// Ends a descriptor for whoever has it. [`News::Revoked`] with this number tells when that is done.
    pub(crate) fn revoke(&mut self, fd: OwnedFd) -> u64 {
        self.last_revocation += 1;
        let _ = self.revocations.send((self.last_revocation, fd));
        self.last_revocation
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.do_job(Job::Stop);
        if let Some(display) = self.display.take() {
            // The screens are given back before the bridge is gone.
            let _ = display.join();
        }
    }
}

const RING_BYTES: u32 = 4096;
