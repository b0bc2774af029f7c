//! Input devices: granted to the compositor alone, revoked with it.

use super::{
    BackendFailure, Bridge, ClientId, Effect, Effects, FactsRefused, Outcome, RequestNumber, Sharing,
    pending::{Asker, Wait, Work},
};
use crate::{
    limits::DEVICES_MAX,
    protocol::{
        Answer, Capability, DenialReason, DeviceId, DeviceInfo, Event, GuiResponse, OtherDenial, Pid,
        SeatDevice,
    },
};

impl Bridge {
    /// An input device was plugged in.
    ///
    /// # Errors
    /// [`FactsRefused`] if there are too many, or the number is in use; nothing has changed then.
    pub fn on_device_added(&mut self, device: DeviceInfo) -> Result<Effects<'_>, FactsRefused> {
        if self.devices.contains_key(&device.id) {
            return Err(FactsRefused::DeviceTwice { device: device.id });
        }
        if self.devices.len() >= DEVICES_MAX {
            return Err(FactsRefused::TooManyDevices { devices_max: DEVICES_MAX });
        }
        let device = device.into_bounded();
        self.devices.insert(device.id, device.clone());
        self.notify_compositor(Event::DeviceAdded(device));
        Ok(self.effects())
    }

    /// An input device was pulled out.
    pub fn on_device_removed(&mut self, device: DeviceId) -> Effects<'_> {
        if self.devices.remove(&device).is_some() {
            self.orphan_work(|work| match work {
                Work::Open { device: opened, .. } => *opened == SeatDevice::Input(device),
                work => work.granted_input() == Some(device),
            });
            self.suspended_inputs.remove(&device);
            self.end_opened_input(device);
            if let (Some(sharing), Some(client)) = (self.inputs.remove(&device), self.compositor) {
                self.outbox.push_back(Effect::RevokeInput { client, device });
                self.notify(client, Event::Revoked { capability: granted(device, sharing) });
            }
            self.notify_compositor(Event::DeviceRemoved { device });
        }
        self.effects()
    }

    pub(super) fn request_input_device(
        &mut self,
        now_ns: u64,
        asker: Asker,
        pid: Pid,
        (device, sharing): (DeviceId, Sharing),
    ) -> Result<Outcome, DenialReason> {
        self.check_request_input_device(asker.client, pid, device)?;
        let ticket = self.pending.insert(now_ns, asker, Work::GrantInput { device, sharing });
        self.outbox.push_back(Effect::GrantInput { ticket, client: asker.client, device, sharing });
        Ok(Outcome::Pending)
    }

    fn check_request_input_device(
        &self,
        caller: ClientId,
        pid: Pid,
        device: DeviceId,
    ) -> Result<(), DenialReason> {
        self.check_own_pid(caller, pid)?;
        self.check_ruling_compositor(caller)?;
        if !self.devices.contains_key(&device) {
            return Err(DenialReason::DeviceNotFound);
        }
        // One grant is under way at a time, so that to undo a late one never takes away another.
        if self.inputs.contains_key(&device) || self.pending.has_grant_for(caller, device) {
            return Err(DenialReason::AlreadyHeld);
        }
        self.pending.check_room(caller)
    }

    /// The hardware has opened an input device, or refused.
    pub(super) fn on_input_opened(
        &mut self,
        asker: Asker,
        wait: Wait,
        (device, sharing): (DeviceId, Sharing),
        result: Result<(), BackendFailure>,
    ) {
        match (wait, result) {
            (Wait::Until { .. }, Ok(())) => {
                self.inputs.insert(device, sharing);
                let capability = granted(device, sharing);
                self.answer(asker, GuiResponse::Granted { capability }.into());
            }
            (Wait::Until { .. }, Err(failure)) => self.answer(asker, Answer::from(failure)),
            (Wait::Overdue | Wait::Orphaned, Ok(())) => {
                self.outbox.push_back(Effect::RevokeInput { client: asker.client, device });
            }
            (Wait::Overdue | Wait::Orphaned, Err(_)) => {}
        }
    }

    /// Takes every input device from the compositor, and remembers it for when the compositor has the seat again.
    pub(super) fn suspend_inputs(&mut self, client: ClientId) {
        self.suspended_inputs.extend(self.pending.regrants());
        self.orphan_pending_work(client, OtherDenial::Paused.into(), |work| {
            matches!(work, Work::GrantInput { .. } | Work::RegrantInput { .. } | Work::Lease { .. })
        });
        for (device, sharing) in core::mem::take(&mut self.inputs) {
            self.suspended_inputs.insert(device, sharing);
            self.outbox.push_back(Effect::RevokeInput { client, device });
            self.notify(client, Event::Revoked { capability: granted(device, sharing) });
        }
    }

    /// Grants the next of the devices that the compositor had before it was paused.
    pub(super) fn regrant_input(&mut self, client: ClientId) {
        while let Some((device, sharing)) = self.suspended_inputs.pop_first() {
            if self.inputs.contains_key(&device) || self.pending.has_grant_for(client, device) {
                continue;
            }
            let asker = Asker { client, number: RequestNumber(0) };
            // Nobody waits for it, so it has no deadline.
            let ticket = self.pending.insert(u64::MAX, asker, Work::RegrantInput { device, sharing });
            self.outbox.push_back(Effect::GrantInput { ticket, client, device, sharing });
            return;
        }
    }

    /// The hardware has opened a device anew, or refused.
    pub(super) fn on_input_regranted(
        &mut self,
        client: ClientId,
        wait: Wait,
        (device, sharing): (DeviceId, Sharing),
        result: &Result<(), BackendFailure>,
    ) {
        match (wait, result) {
            (Wait::Until { .. }, result) => {
                if result.is_ok() {
                    self.inputs.insert(device, sharing);
                    self.notify(client, Event::Granted { capability: granted(device, sharing) });
                }
                self.regrant_input(client);
            }
            (Wait::Overdue | Wait::Orphaned, Ok(())) => {
                self.outbox.push_back(Effect::RevokeInput { client, device });
            }
            (Wait::Overdue | Wait::Orphaned, Err(_)) => {}
        }
    }

    /// Takes every input device from the compositor that was.
    pub(super) fn end_inputs(&mut self, client: ClientId) {
        self.suspended_inputs.clear();
        for device in core::mem::take(&mut self.inputs).into_keys() {
            self.outbox.push_back(Effect::RevokeInput { client, device });
        }
    }

    pub(super) fn list_devices(&self, caller: ClientId) -> Result<Outcome, DenialReason> {
        self.check_compositor(caller)?;
        Ok(Outcome::Now(Answer::Devices(self.devices.values().cloned().collect())))
    }
}

/// Of a shared one, whoever else can open the device, such as the administrator, may read it too.
fn granted(device: DeviceId, sharing: Sharing) -> Capability {
    Capability::InputDevice { device, exclusive: sharing == Sharing::Exclusive }
}
