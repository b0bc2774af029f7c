//! Regions: making, mapping, passing on, unmapping.

use alloc::{collections::BTreeSet, vec};

use keyway_abi::{
    Created, Denial, Farewell, Handle, Kind, MappingId, Reply, Rights, Terms,
    layout::PAGE_BYTES,
    limits::{HUGE_PAGE_BYTES, REGION_BYTES_MAX},
    request::{self, MapAccess, RegionFlags},
};

use crate::{
    effect::{Descriptor, Effect, Refusal, SealUse, Token},
    kernel::{Kernel, Outcome},
    lane::{Mapping, Waiting},
    limits::Charge,
    object::{Body, Region, RegionState},
    sweep::{Caller, Loss},
    tree::{CapabilityId, Child, Holder, ObjectId},
};

impl Kernel {
    pub(crate) fn create_region(
        &mut self,
        caller: Caller,
        request: &request::CreateRegion,
    ) -> Result<Outcome, Denial> {
        let (bytes, page) = (request.bytes, PAGE_BYTES as u64);
        if bytes == 0 || bytes % page != 0 || bytes > REGION_BYTES_MAX {
            return Err(Denial::InvalidSize { asked: bytes, min: page, max: REGION_BYTES_MAX });
        }
        let flags = request.flags;
        let both = RegionFlags::FREEZABLE.union(RegionFlags::SHARED);
        let huge = flags.contains(RegionFlags::HUGE);
        if !RegionFlags::all().contains(flags) || flags.contains(both) || huge && bytes % HUGE_PAGE_BYTES != 0
        {
            return Err(Denial::InvalidFlags { asked: flags.bits(), bytes });
        }
        self.check_room(caller.process)?;
        let charge = Region::charge(bytes);
        let account = self.process(caller.process).account;
        self.accounts.check(account, charge.plus(Charge::HANDLE).plus(Charge::REQUEST))?;
        let token = Token(self.next_number());
        let (id, handle) = self.commit_object(caller.process, Region::RIGHTS, charge, |_, _| {
            let mappings = BTreeSet::new();
            Body::Region(Region { token, bytes, flags, state: RegionState::Creating, mappings })
        });
        let task = self.wait_for(Some(caller), Waiting::Region(id, handle));
        self.effects.push(Effect::CreateMemory { task, first: token, count: 1, bytes, huge });
        Ok(Outcome::Later)
    }

    pub(crate) fn map_region(
        &mut self,
        caller: Caller,
        request: &request::MapRegion,
    ) -> Result<Outcome, Denial> {
        let needed = match request.access {
            MapAccess::Read | MapAccess::Frozen => Rights::MAP,
            MapAccess::Write | MapAccess::Share => Rights::WRITE,
        };
        let (through, capability) = self.held(caller.process, request.region, Kind::Region, needed)?;
        if capability.revoking {
            return Err(Denial::Revoking { handle: request.region });
        }
        let id = capability.object;
        self.check_opens(request.region, through)?;
        self.check_map(caller, id, request.access)?;
        let mapping = self.commit_mapping(caller, through, id);
        let region = self.region_mut(id);
        let descriptor = match request.access {
            MapAccess::Read | MapAccess::Frozen => Descriptor::Readable(region.token),
            MapAccess::Write | MapAccess::Share => {
                if region.state == RegionState::Unwritten {
                    region.state = RegionState::Writing(mapping);
                }
                Descriptor::Writable(region.token)
            }
        };
        let bytes = region.bytes;
        let word = self.mappings[&mapping].word;
        Ok(Outcome::Reply(Reply::Mapping { mapping, word, bytes }, vec![descriptor]))
    }

    pub(crate) fn region_mapped(
        &mut self,
        caller: Caller,
        request: &request::RegionMapped,
    ) -> Result<Outcome, Denial> {
        let id = self.check_mapping(caller, request.mapping)?;
        if self.region(id).state != RegionState::Writing(request.mapping) {
            return Err(Denial::AlreadyMapped);
        }
        self.check_request(caller.process)?;
        let region = self.region_mut(id);
        region.state = RegionState::Sealing(request.mapping);
        let (token, bytes) = (region.token, region.bytes);
        let seals = match region.flags {
            flags if flags.contains(RegionFlags::FREEZABLE) => SealUse::FreezableRegion,
            flags if flags.contains(RegionFlags::SHARED) => SealUse::SharedRegion,
            _ => SealUse::LiveRegion,
        };
        let task = self.wait_for(Some(caller), Waiting::RegionSeal(request.mapping));
        self.effects.push(Effect::SealMemory { task, tokens: vec![token], seals, bytes });
        Ok(Outcome::Later)
    }

    pub(crate) fn freeze(&mut self, caller: Caller, request: &request::Freeze) -> Result<Outcome, Denial> {
        let id = self.check_mapping(caller, request.mapping)?;
        let region = self.region(id);
        if !region.flags.contains(RegionFlags::FREEZABLE) {
            return Err(Denial::NotFreezable);
        }
        match region.state {
            RegionState::Live(writer) if writer == request.mapping => {}
            RegionState::Freezing(writer) if writer == request.mapping => return Err(Denial::Pinned),
            _ => return Err(Denial::NotWriter { mapping: request.mapping }),
        }
        self.check_request(caller.process)?;
        let region = self.region_mut(id);
        region.state = RegionState::Freezing(request.mapping);
        let token = region.token;
        let task = self.wait_for(Some(caller), Waiting::Freeze(id));
        self.effects.push(Effect::FreezeMemory { task, token, process: caller.process });
        Ok(Outcome::Later)
    }

    /// Linux has frozen the region, or refused to.
    pub(crate) fn commit_frozen(&mut self, caller: Caller, id: ObjectId, outcome: Result<(), Refusal>) {
        self.answer_frozen(caller, id, outcome);
        // Everybody may have given it up meanwhile.
        self.free_if_unused(id);
    }

    fn answer_frozen(&mut self, caller: Caller, id: ObjectId, outcome: Result<(), Refusal>) {
        let mut token = None;
        if self.objects.contains_key(&id) {
            let region = self.region_mut(id);
            if outcome.is_ok() {
                region.state = RegionState::Frozen;
                token = Some(region.token);
            } else if let RegionState::Freezing(writer) = region.state {
                let is_here = region.mappings.contains(&writer);
                region.state = if is_here { RegionState::Live(writer) } else { RegionState::Settled };
            }
        }
        let reply = match (outcome, token) {
            (Ok(()), Some(token)) => {
                return self.reply(caller, Reply::Done, vec![Descriptor::Readable(token)]);
            }
            (Ok(()), None) => Denial::ObjectEnded { kind: Kind::Region },
            (Err(Refusal::System(EBUSY)), _) => Denial::Pinned,
            (Err(Refusal::System(EPERM)), _) => Denial::SealedByOther,
            (Err(Refusal::System(errno)), _) => Denial::SystemRefused { errno },
            (Err(Refusal::Fault(fault)), _) => {
                return self.end_session(caller.process, Some(Farewell::Fault(fault)));
            }
        };
        self.reply(caller, Reply::Denied(reply), vec![]);
    }

    pub(crate) fn unmap(&mut self, caller: Caller, request: &request::Unmap) -> Result<Outcome, Denial> {
        self.check_mapping(caller, request.mapping)?;
        self.end_mapping(request.mapping, Loss::Deleted);
        Outcome::reply(Reply::Done)
    }

    /// The region's memory is there.
    pub(crate) fn commit_region_made(&mut self, caller: Caller, id: ObjectId, handle: Handle) {
        if self.objects.contains_key(&id) {
            self.region_mut(id).state = RegionState::Unwritten;
        }
        let reply = match self.first_capability(caller, handle) {
            Some(_) => Reply::Capability(Created { handle, rights: Region::RIGHTS, badge: None }),
            None => Reply::Denied(Denial::ObjectEnded { kind: Kind::Region }),
        };
        self.reply(caller, reply, vec![]);
    }

    /// The capability with which the asker made a region, if it still has it: none takes its place while the region is being made.
    pub(crate) fn first_capability(&self, caller: Caller, handle: Handle) -> Option<CapabilityId> {
        self.process(caller.process).table.get(handle).ok()
    }

    /// The region is sealed: others can read it.
    pub(crate) fn commit_region_sealed(&mut self, caller: Caller, mapping: MappingId) {
        let id = self.mappings[&mapping].region;
        let region = self.region_mut(id);
        if region.state == RegionState::Sealing(mapping) {
            region.state = RegionState::Live(mapping);
        }
        self.reply(caller, Reply::Done, vec![]);
    }

    pub(crate) fn region(&self, id: ObjectId) -> &Region {
        match &self.object(id).body {
            Body::Region(region) => region,
            // INVARIANT: the kind was judged when the id was found.
            _ => unreachable!("the object is a region"),
        }
    }

    pub(crate) fn region_mut(&mut self, id: ObjectId) -> &mut Region {
        match &mut self.object_mut(id).body {
            Body::Region(region) => region,
            // INVARIANT: the kind was judged when the id was found.
            _ => unreachable!("the object is a region"),
        }
    }

    fn check_map(&self, caller: Caller, id: ObjectId, access: MapAccess) -> Result<(), Denial> {
        let Body::Region(region) = &self.object(id).body else {
            return Err(Denial::ObjectEnded { kind: Kind::Region });
        };
        let shared = region.flags.contains(RegionFlags::SHARED);
        if matches!((access, shared), (MapAccess::Write, true) | (MapAccess::Share, false)) {
            return Err(Denial::WrongSharing { shared });
        }
        match (access, region.state) {
            (_, RegionState::Abandoned) => return Err(Denial::ObjectEnded { kind: Kind::Region }),
            (_, RegionState::Creating)
            | (MapAccess::Read, RegionState::Unwritten)
            | (MapAccess::Read | MapAccess::Share, RegionState::Writing(_) | RegionState::Sealing(_)) => {
                return Err(Denial::RegionUnwritten);
            }
            (MapAccess::Frozen, RegionState::Frozen)
            | (MapAccess::Read | MapAccess::Share, _)
            | (MapAccess::Write, RegionState::Unwritten) => {}
            (MapAccess::Frozen, _) => return Err(Denial::NotFrozen),
            (MapAccess::Write, _) => return Err(Denial::WriterTaken),
        }
        let process = self.process(caller.process);
        self.accounts.check(process.account, Mapping::CHARGE)?;
        process.pages.check_word()
    }

    fn check_mapping(&self, caller: Caller, id: MappingId) -> Result<ObjectId, Denial> {
        match self.mappings.get(&id) {
            Some(mapping) if mapping.process == caller.process => Ok(mapping.region),
            _ => Err(Denial::UnknownMapping { mapping: id }),
        }
    }

    fn commit_mapping(&mut self, caller: Caller, through: CapabilityId, region: ObjectId) -> MappingId {
        let id = MappingId(self.next_number());
        let parent = self.tree.get(through);
        let terms = Terms { badge: parent.badge, ..Terms::rights(Rights::empty()) };
        let child = Child { terms, bearer: parent.bearer, holder: Holder::Mapping(id), payer: None };
        let capability = Some(self.commit_derive(through, child));
        let word = self.take_word(caller.process);
        let process = self.process_mut(caller.process);
        process.mappings.insert(id);
        let account = process.account;
        self.accounts.charge(account, Mapping::CHARGE);
        self.mappings.insert(id, Mapping { process: caller.process, region, capability, word });
        self.region_mut(region).mappings.insert(id);
        self.set_word(caller.process, word, word.generation);
        id
    }
}

/// Error numbers of Linux.
const EPERM: i32 = 1;
const EBUSY: i32 = 16;

impl Region {
    /// What a region costs its creator.
    pub(crate) fn charge(bytes: u64) -> Charge {
        Charge { objects: 1, descriptors: 1, bytes, ..Charge::NOTHING }
    }
}
