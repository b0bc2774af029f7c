//! What one input has taken from a process, told to it in as few frames as will hold it.
//!
//! One frame for each thing would fill the outbox of a process that reads all the time: others decide how much it loses at
//! once.

use alloc::vec::Vec;

use keyway_abi::{Event, Handle, LaneEnd, LaneId, ProcessNumber, limits::EVENT_ENTRIES_MAX};

use crate::kernel::Kernel;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// By reason; few are there at a time.
    ended: Vec<(LaneEnd, Vec<LaneId>)>,
    pub(crate) lost: Vec<Handle>,
    pub(crate) acks: Vec<(Handle, u32)>,
}

impl News {
    pub(crate) fn on_ended(&mut self, lane: LaneId, why: LaneEnd) {
        match self.ended.iter_mut().find(|(found, _)| *found == why) {
            Some((_, lanes)) => lanes.push(lane),
            None => self.ended.push((why, alloc::vec![lane])),
        }
    }

    fn into_events(self) -> impl Iterator<Item = Event> {
        let lanes = |(why, lanes): (LaneEnd, Vec<LaneId>)| {
            in_parts(lanes).map(move |lanes| Event::LanesEnded { lanes, why })
        };
        let ended = self.ended.into_iter().flat_map(lanes);
        let acks = in_parts(self.acks).map(|acks| Event::AcksDropped { acks });
        ended.chain(in_parts(self.lost).map(|handles| Event::CapabilitiesLost { handles })).chain(acks)
    }
}

fn in_parts<T: Clone>(entries: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let count = entries.len().div_ceil(EVENT_ENTRIES_MAX);
    (0..count).map(move |part| {
        entries.iter().skip(part * EVENT_ENTRIES_MAX).take(EVENT_ENTRIES_MAX).cloned().collect()
    })
}

impl Kernel {
    /// What this input takes from a process.
    pub(crate) fn news_of(&mut self, process: ProcessNumber) -> &mut News {
        self.news.entry(process).or_default()
    }

    /// The input has been handled, or a session ends in it: who has lost something is told.
    pub(crate) fn tell_news(&mut self) {
        for (process, news) in core::mem::take(&mut self.news) {
            for event in news.into_events() {
                self.notify(process, event, Vec::new());
            }
        }
    }
}
