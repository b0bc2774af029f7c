//! Devices: descriptors that a trusted process hands in and others claim.

use alloc::vec;

use keyway_abi::{Created, Denial, Fault, Kind, Reply, Rights, request};

use crate::{
    account::Charge,
    effect::{Descriptor, Door, Effect, PairKind, Token},
    kernel::{Kernel, Outcome},
    lane::Waiting,
    object::{Body, Device},
    sweep::Caller,
};

impl Kernel {
    pub(crate) fn open_deposit(
        &mut self,
        caller: Caller,
        request: &request::OpenDeposit,
    ) -> Result<Outcome, Denial> {
        self.check_self(caller, request.process, Rights::DEPOSIT)?;
        let task = self.wait_for(Some(caller), Waiting::DepositPair);
        self.effects.push(Effect::CreatePair { task, process: caller.process, kind: PairKind::Deposit });
        Ok(Outcome::Later)
    }

    pub(crate) fn deposit(
        &mut self,
        caller: Caller,
        request: request::Deposit,
        device: Option<Token>,
    ) -> Result<Outcome, Denial> {
        let (Door::Deposit, Some(token)) = (caller.call.door, device) else {
            return Ok(Outcome::Fault(Fault::DepositEmpty { found: u32::from(device.is_some()) }));
        };
        self.check_room(caller.process)?;
        let account = self.process(caller.process).account;
        self.accounts.check(account, Device::CHARGE.plus(Charge::HANDLE))?;
        let (label, owner) = (request.label, caller.process);
        let (id, handle) = self.commit_object(owner, Device::RIGHTS, Device::CHARGE, |_, root| {
            Body::Device(Device { token, label, root, owner })
        });
        self.process_mut(owner).owned.insert(id);
        Outcome::reply(Reply::Capability(Created { handle, rights: Device::RIGHTS, badge: None }))
    }

    pub(crate) fn claim(&mut self, caller: Caller, request: &request::Claim) -> Result<Outcome, Denial> {
        let (_, capability) = self.held(caller.process, request.device, Kind::Device, Rights::CLAIM)?;
        let Body::Device(device) = &self.object(capability.object).body else {
            return Err(Denial::ObjectEnded { kind: Kind::Device });
        };
        let token = device.token;
        Ok(Outcome::Reply(Reply::Done, vec![Descriptor::Device(token)]))
    }
}

impl Device {
    /// What a device costs the process that handed it in.
    pub(crate) const CHARGE: Charge = Charge { objects: 1, descriptors: 1, ..Charge::NOTHING };
}
