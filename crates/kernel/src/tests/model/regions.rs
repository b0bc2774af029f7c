//! Steps with regions: making, mapping, freezing, unmapping.

use alloc::vec::Vec;

use keyway_abi::{
    Denial, Kind, MappingId, Quota, Reply, Rights,
    request::{self, MapAccess, RegionFlags},
};

use super::{
    charges::{HANDLE, REGION, REQUEST},
    oracle::{Body, Holder, Mapping, RegionState},
    steps::Duel,
};
use crate::{object::Region, tests::driver::REGION_BYTES};

impl Duel {
    pub(super) fn create_region(&mut self, process: usize, choice: u8) -> bool {
        let flags = RegionFlags::from_bits_truncate((choice % 4).into());
        let bytes = REGION_BYTES;
        let both = RegionFlags::FREEZABLE | RegionFlags::SHARED;
        let account = self.oracle.account(process);
        let plan = if flags == both {
            Err(Denial::InvalidFlags { asked: both.bits(), bytes })
        } else {
            self.oracle.affords(account, &[&HANDLE])
        };
        let plan = plan.and_then(|()| self.oracle.affords(account, &[&REGION, &HANDLE, &REQUEST]));
        let request = request::CreateRegion { bytes, flags };
        let Some(((), Reply::Capability(made))) = self.ask(process, request, plan) else { return false };
        let body = Body::Region(RegionState::Unwritten, flags);
        self.oracle.object(body, Region::RIGHTS, Holder::Process(process, made.handle));
        true
    }

    pub(super) fn map(&mut self, process: usize, first: u8, second: u8) -> bool {
        let region = self.pick_opening(process, first, Kind::Region);
        let (access, needed) = match second % 8 {
            0..=2 => (MapAccess::Read, Rights::MAP),
            3..=4 => (MapAccess::Share, Rights::WRITE),
            5 => (MapAccess::Frozen, Rights::MAP),
            _ => (MapAccess::Write, Rights::WRITE),
        };
        let plan = self.oracle.held(process, region, Kind::Region, needed).and_then(|id| {
            self.oracle.openable(id, region)?;
            self.oracle.mappable(self.oracle.capabilities[id].object, access)?;
            self.oracle.affords(self.oracle.account(process), &[&[(Quota::Mappings, 1)]])?;
            Ok(id)
        });
        let request = request::MapRegion { region, access };
        let Some((id, reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Mapping { mapping, .. } = reply else { panic!("a mapping: {reply:?}") };
        let badge = self.oracle.capabilities[id].badge;
        let capability = self.oracle.child(id, Rights::empty(), badge, Holder::Mapping(mapping));
        let object = self.oracle.capabilities[id].object;
        if let (MapAccess::Write | MapAccess::Share, Body::Region(state @ RegionState::Unwritten, _)) =
            (access, &mut self.oracle.objects[object])
        {
            *state = RegionState::Writing(mapping);
        }
        self.oracle.mappings.insert(mapping, Mapping { process, region: object, capability });
        self.mappings.push(mapping);
        true
    }

    pub(super) fn written_or_unmapped(&mut self, process: usize, first: u8, second: u8) -> bool {
        let own = self.oracle.mappings.iter().filter(|(_, found)| found.process == process);
        let own: Vec<MappingId> = own.map(|(id, _)| *id).collect();
        let all = if first % 8 < 6 && !own.is_empty() { &own } else { &self.mappings };
        let mapping = match all.len() {
            0 => MappingId(first.into()),
            count => all[count - 1 - usize::from(first / 8) % count],
        };
        let found = self.oracle.mappings.get(&mapping).filter(|found| found.process == process);
        let plan = found.map(|found| found.region).ok_or(Denial::UnknownMapping { mapping });
        if second % 8 < 3 {
            let unmapped = self.ask(process, request::Unmap { mapping }, plan).is_some();
            if unmapped {
                self.oracle.unmap(mapping);
            }
            return unmapped;
        }
        if second % 8 == 7 {
            return self.freeze(process, mapping, plan);
        }
        let plan = plan.and_then(|region| match self.oracle.objects[region] {
            Body::Region(RegionState::Writing(writer), _) if writer == mapping => Ok(region),
            _ => Err(Denial::AlreadyMapped),
        });
        let plan = plan.and_then(|region| self.pays_for_a_request(process, region));
        let Some((region, _)) = self.ask(process, request::RegionMapped { mapping }, plan) else {
            return false;
        };
        self.become_state(region, RegionState::Live(mapping));
        true
    }

    pub(super) fn freeze(&mut self, process: usize, mapping: MappingId, plan: Result<usize, Denial>) -> bool {
        let plan = plan.and_then(|region| match self.oracle.objects[region] {
            Body::Region(_, flags) if !flags.contains(RegionFlags::FREEZABLE) => Err(Denial::NotFreezable),
            Body::Region(RegionState::Live(writer), _) if writer == mapping => Ok(region),
            _ => Err(Denial::NotWriter { mapping }),
        });
        let plan = plan.and_then(|region| self.pays_for_a_request(process, region));
        let Some((region, reply)) = self.ask(process, request::Freeze { mapping }, plan) else {
            return false;
        };
        assert_eq!(reply, Reply::Done);
        self.become_state(region, RegionState::Frozen);
        true
    }

    pub(super) fn pays_for_a_request<T>(&self, process: usize, plan: T) -> Result<T, Denial> {
        self.oracle.affords(self.oracle.account(process), &[&REQUEST])?;
        Ok(plan)
    }

    pub(super) fn become_state(&mut self, region: usize, now: RegionState) {
        if let Body::Region(state, _) = &mut self.oracle.objects[region] {
            *state = now;
        }
    }
}
