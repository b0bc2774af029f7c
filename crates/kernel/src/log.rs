//! What was granted, refused and taken back: the newest of it.
//!
//! Two rings, so that whoever is refused all the time does not push out what others were granted.

use alloc::{collections::VecDeque, vec::Vec};

use keyway_abi::{AuditEntry, ProcessNumber, Verdict, limits::AUDIT_ENTRIES_MAX};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Log {
    granted: VecDeque<AuditEntry>,
    refused: VecDeque<AuditEntry>,
    last: u64,
    /// On whose behalf the kernel acts at this moment, and by which operation.
    asker: Option<(ProcessNumber, u16)>,
}

impl Log {
    /// Who has asked for what is recorded from now on. Returns who it was until now.
    pub(crate) fn set_asker(&mut self, asker: Option<(ProcessNumber, u16)>) -> Option<(ProcessNumber, u16)> {
        core::mem::replace(&mut self.asker, asker)
    }

    /// Who has asked for what happens now.
    pub(crate) fn asker(&self) -> Option<(ProcessNumber, u16)> {
        self.asker
    }

    /// Records after `after`, oldest first.
    pub(crate) fn entries(&self, after: Option<u64>, count: usize) -> Vec<AuditEntry> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let from = |ring: &VecDeque<AuditEntry>| ring.partition_point(|entry| entry.sequence < first);
        let mut granted = self.granted.range(from(&self.granted)..).peekable();
        let mut refused = self.refused.range(from(&self.refused)..).peekable();
        let next = || {
            let refused_first = match (granted.peek(), refused.peek()) {
                (Some(granted), Some(refused)) => refused.sequence < granted.sequence,
                (granted, _) => granted.is_none(),
            };
            if refused_first { refused.next().cloned() } else { granted.next().cloned() }
        };
        core::iter::from_fn(next).take(count).collect()
    }

    pub(crate) fn push(&mut self, mut entry: AuditEntry) {
        let is_refusal = matches!(entry.verdict, Verdict::Refused { .. });
        let ring = if is_refusal { &mut self.refused } else { &mut self.granted };
        if let (Some(newest), Verdict::Refused { denial, .. }) = (ring.back_mut(), &entry.verdict)
            && (newest.process, newest.opcode) == (entry.process, entry.opcode)
            && let Verdict::Refused { denial: before, times } = &mut newest.verdict
            && before == denial
        {
            *times = times.saturating_add(1);
            newest.at_ns = entry.at_ns;
            return;
        }
        self.last += 1;
        entry.sequence = self.last;
        // LIMIT: AUDIT_ENTRIES_MAX.
        if ring.len() == AUDIT_ENTRIES_MAX {
            ring.pop_front();
        }
        ring.push_back(entry);
    }
}
