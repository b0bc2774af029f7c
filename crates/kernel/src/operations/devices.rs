//! Devices: descriptors that a trusted process hands in and others claim.

use alloc::vec;

use keyway_abi::{Created, Denial, Fault, Kind, ProcessNumber, Reply, Rights, request};

use crate::{
    account::AccountId,
    effect::{Descriptor, Door, Effect, PairKind, Task, Token},
    kernel::{Kernel, Outcome},
    lane::Waiting,
    limits::Charge,
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
        self.check_request(caller.process)?;
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

/// Descriptors that came from processes go.
impl Kernel {
    /// The descriptor that came beside a request which was refused. Its sender pays for it until it is closed.
    pub(crate) fn refuse_device(&mut self, process: ProcessNumber, token: Token) {
        let account = self.processes.get(&process).map(|process| process.account);
        if let Some(account) = account {
            self.accounts.charge(account, Charge::DESCRIPTOR);
        }
        self.drop_device(account, token);
    }

    /// The descriptor is closed; `account` is charged for it until it is.
    pub(crate) fn drop_device(&mut self, account: Option<AccountId>, token: Token) {
        let task = match account {
            Some(account) => self.wait_for(None, Waiting::Closing(account)),
            None => Task(self.next_number()),
        };
        self.effects.push(Effect::DropDevice { task, token });
    }
}

impl Device {
    /// What a device costs the process that handed it in.
    pub(crate) const CHARGE: Charge = Charge { objects: 1, descriptors: 1, ..Charge::NOTHING };
}
