//! What one input has taken from a process, told to it in as few frames as will hold it.
//!
//! One frame for each thing would fill the outbox of a process that reads all the time: others decide how much it loses at
//! once.

use alloc::vec::Vec;

use keyway_abi::{Event, Handle, LaneEnd, LaneId, ProcessNumber, limits::EVENT_ENTRIES_MAX};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// By reason; few are there at a time.
    ended: Vec<(LaneEnd, Vec<LaneId>)>,
    pub(crate) lost: Vec<Handle>,
    pub(crate) acks: Vec<(Handle, u32)>,
    /// With whom doorbells are over.
    pub(crate) doorbells: Vec<ProcessNumber>,
}

impl News {
    pub(crate) fn on_ended(&mut self, lane: LaneId, why: LaneEnd) {
        match self.ended.iter_mut().find(|(found, _)| *found == why) {
            Some((_, lanes)) => lanes.push(lane),
            None => self.ended.push((why, alloc::vec![lane])),
        }
    }

    /// In as few events as will hold it.
    pub(crate) fn into_events(self) -> impl Iterator<Item = Event> {
        let lanes = |(why, lanes): (LaneEnd, Vec<LaneId>)| {
            in_parts(lanes).map(move |lanes| Event::LanesEnded { lanes, why })
        };
        let ended = self.ended.into_iter().flat_map(lanes);
        let acks = in_parts(self.acks).map(|acks| Event::AcksDropped { acks });
        let doorbells = in_parts(self.doorbells).map(|peers| Event::DoorbellsEnded { peers });
        let lost = in_parts(self.lost).map(|handles| Event::CapabilitiesLost { handles });
        ended.chain(lost).chain(acks).chain(doorbells)
    }
}

fn in_parts<T: Clone>(entries: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let count = entries.len().div_ceil(EVENT_ENTRIES_MAX);
    (0..count).map(move |part| {
        entries.iter().skip(part * EVENT_ENTRIES_MAX).take(EVENT_ENTRIES_MAX).cloned().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_told_in_several_events_each_thing_once() {
        let mut news = News::default();
        let handles: Vec<Handle> = (0..1100).map(|slot| Handle::new(slot, 1)).collect();
        news.lost.clone_from(&handles);
        for lane in 0..600 {
            news.on_ended(LaneId(lane), if lane % 2 == 0 { LaneEnd::Closed } else { LaneEnd::Revoked });
        }
        let events: Vec<Event> = news.into_events().collect();
        let counts: Vec<usize> = events
            .iter()
            .map(|event| match event {
                Event::CapabilitiesLost { handles } => handles.len(),
                Event::LanesEnded { lanes, .. } => lanes.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(counts, [300, 300, 512, 512, 76]);
        let told = events.into_iter().filter_map(|event| match event {
            Event::CapabilitiesLost { handles } => Some(handles),
            _ => None,
        });
        assert_eq!(told.flatten().collect::<Vec<_>>(), handles);
    }
}
