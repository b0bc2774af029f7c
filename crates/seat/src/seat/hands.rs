//! What the machine says, done: effects are carried out in their order, and what the hardware answers goes back.

use std::{collections::VecDeque, os::fd::OwnedFd, sync::Arc};

use keyway::{Carried, Outgoing, Queue, ReplyTo, Rights};
use keyway_gui::{
    Access, BackendFailure, ClientId, Effect, RequestNumber, Sharing, Ticket,
    protocol::{
        self, Answer, Capability as Granted, ConnectorId, DeviceId, Event, GuiResponse, LeaseId, Rectangle,
        SurfaceConfig, SurfaceId, SurfaceLayout,
    },
};

use super::{Buffer, EARLY_MAX, Input, Seat, SeatError, Source, sessions};
use crate::{drm::Job, hardware::Hardware, headless::KEYBOARD, input::VirtualInput, news::News};

impl Seat {
    /// Carries effects out in order. What the hardware answers goes back to the machine, whose further effects follow.
    ///
    /// What is to be told after a device is taken back is told once that is done; everything else goes on meanwhile.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut waiting = VecDeque::from(effects);
        let (mut revoking, mut told) = (Vec::new(), Vec::new());
        while let Some(effect) = waiting.pop_front() {
            let answered = match effect {
                Effect::Answer { .. }
                | Effect::Notify { .. }
                | Effect::ShareSurface { .. }
                | Effect::AnswerSession { .. }
                | Effect::TellSession { .. } => {
                    told.push(effect);
                    if revoking.is_empty() {
                        self.tell(std::mem::take(&mut told));
                    }
                    None
                }
                Effect::RevokeInput { client, device } => {
                    revoking.extend(self.revoke_input(client, device));
                    None
                }
                Effect::WatchProcess { client } => {
                    self.watch(client);
                    None
                }
                effect => self.drive(&effect),
            };
            if let Some((ticket, outcome)) = answered {
                waiting.extend(self.machine.on_backend(ticket, outcome));
            }
        }
        if !told.is_empty() {
            self.untold.push((revoking, told));
        }
    }

    /// Sends messages, each with what the effect before it attaches.
    pub(super) fn tell(&mut self, messages: Vec<Effect>) {
        for effect in messages {
            match effect {
                Effect::ShareSurface { surface, access, .. } => self.attached = Some((surface, access)),
                Effect::Answer { client, answer, .. } if sessions::is_of_seatd(client) => {
                    self.answer_refusal(client, &answer);
                }
                Effect::AnswerSession { client, answer } => self.answer_session(client, answer),
                Effect::TellSession { client, event } => self.tell_session(client, event),
                Effect::Answer { client, request, answer } => {
                    let attached = self.attached.take();
                    self.answer(client, request, &answer, attached);
                }
                Effect::Notify { client, event } => {
                    let attached = self.attached.take();
                    self.notify(client, &event, attached);
                }
                _ => {}
            }
        }
    }

    /// What the hardware has to tell.
    pub(super) fn look_at_hardware(&mut self) -> Result<(), SeatError> {
        // LIMIT: each round takes one thing that was told.
        loop {
            let Hardware::Real(real) = &mut self.hardware else { return Ok(()) };
            // What wakes is taken before what it wakes for, so that nothing is left over in silence.
            while real.queue.try_next()?.is_some() {}
            match real.news.try_recv() {
                Ok(news) => self.on_news(news),
                Err(_) if real.is_over() => return Err(SeatError::HardwareGone),
                Err(_) => return Ok(()),
            }
        }
    }

    pub(super) fn on_news(&mut self, news: News) {
        let effects: Vec<Effect> = match news {
            News::Answered(ticket, outcome) => self.machine.on_backend(ticket, outcome).collect(),
            // What is over the machine's bounds does not exist for it.
            News::ConnectorChanged(info) => {
                self.machine.on_connector_changed(info).map(Iterator::collect).unwrap_or_default()
            }
            News::ConnectorRemoved(connector) => self.machine.on_connector_removed(connector).collect(),
            News::Leased(ticket, lease, made) => {
                let outcome =
                    self.take_lease(lease, made).map_err(|message| BackendFailure::Refused { message });
                self.machine.on_backend(ticket, outcome).collect()
            }
            News::CardOpened(ticket, client, card, opened) => {
                let outcome = self
                    .take_card(client, card, opened)
                    .map_err(|message| BackendFailure::Refused { message });
                self.machine.on_backend(ticket, outcome).collect()
            }
            News::NodeOpened(ticket, client, opened) => {
                let outcome =
                    self.take_node(client, opened).map_err(|message| BackendFailure::Refused { message });
                self.machine.on_backend(ticket, outcome).collect()
            }
            News::InputChanged => return self.on_input_changed(),
            News::Revoked(number) => return self.on_revoked(number),
        };
        self.carry_out(effects);
    }

    /// Has the broker keep a lease's descriptor for whoever asked for it.
    pub(super) fn take_lease(&mut self, lease: LeaseId, made: Result<OwnedFd, String>) -> Result<(), String> {
        let label = format!("lease-{}", lease.0);
        let kept = made.and_then(|fd| self.depositor.deposit(&label, fd).map_err(|error| error.to_string()));
        if kept.is_err()
            && let Hardware::Real(real) = &mut self.hardware
        {
            // Nobody will have it.
            real.do_job(Job::EndLease(lease));
        }
        self.leases.insert(lease, kept?);
        Ok(())
    }

    /// Has the broker keep a render node's descriptor for its client. Its label says which it is, and what holds of it.
    fn take_node(&mut self, client: ClientId, opened: Result<OwnedFd, String>) -> Result<(), String> {
        let node = match &self.hardware {
            Hardware::Real(real) => real.render_node.as_ref().map_or("", |node| node.name.as_str()),
            Hardware::Headless(_) => "",
        };
        let label = format!("{node}-irrevocable-memory-advisory");
        let kept = self.depositor.deposit(&label, opened?).map_err(|error| error.to_string())?;
        self.nodes.insert(client, kept);
        Ok(())
    }

    pub(super) fn on_input_changed(&mut self) {
        let Hardware::Real(real) = &mut self.hardware else { return };
        let (came, gone) = real.devices.scan();
        let device_type = real.device_type();
        for device in gone {
            let effects = self.machine.on_device_removed(device).collect();
            self.carry_out(effects);
        }
        for device in came {
            let effects = self.machine.on_device_added(device).map(Iterator::collect).unwrap_or_default();
            self.carry_out(effects);
        }
        let effects = self.machine.on_device_type(device_type).collect();
        self.carry_out(effects);
    }

    /// Tells what waited for a device to be taken back.
    pub(super) fn on_revoked(&mut self, number: u64) {
        for (revoking, _) in &mut self.untold {
            revoking.retain(|waiting| *waiting != number);
        }
        while let Some(ready) = self.untold.iter().position(|(revoking, _)| revoking.is_empty()) {
            let (_, messages) = self.untold.remove(ready);
            self.tell(messages);
        }
    }

    /// What concerns the hardware. Returns what it answered, where the machine waits for that and it is known already.
    pub(super) fn drive(&mut self, effect: &Effect) -> Option<(Ticket, Result<(), BackendFailure>)> {
        match *effect {
            Effect::SetMode { ticket, connector, mode } => match &mut self.hardware {
                Hardware::Headless(headless) => {
                    headless.set_mode(connector, mode);
                    Some((ticket, Ok(())))
                }
                Hardware::Real(real) => {
                    real.do_job(Job::SetMode { ticket, connector, mode });
                    None
                }
            },
            Effect::RestoreDisplay => {
                match &mut self.hardware {
                    Hardware::Headless(headless) => headless.restore(),
                    Hardware::Real(real) => real.do_job(Job::Restore),
                }
                None
            }
            Effect::AllocateSurface { ticket, surface, config, layout, .. } => {
                Some((ticket, self.allocate(surface, config, layout).map_err(|error| failure(&error))))
            }
            Effect::FreeSurface { surface } => {
                match &mut self.hardware {
                    Hardware::Headless(headless) => headless.hide(surface),
                    Hardware::Real(real) => real.do_job(Job::Hide(surface)),
                }
                if let Some(buffer) = self.surfaces.remove(&surface) {
                    // It may be gone with the broker.
                    let _ = buffer.region.revoke();
                }
                None
            }
            Effect::GrantInput { ticket, client, device, sharing } => {
                Some((ticket, self.grant_input(client, device, sharing)))
            }
            Effect::Present { ticket, connector, surface, ref damage } => {
                let shown = self.present(ticket, (connector, surface), damage.clone());
                shown
                    .map_err(|message| BackendFailure::Refused { message })
                    .transpose()
                    .map(|shown| (ticket, shown))
            }
            _ => self.lend(effect),
        }
    }

    /// What concerns screens that others drive, as [`Seat::drive`].
    fn lend(&mut self, effect: &Effect) -> Option<(Ticket, Result<(), BackendFailure>)> {
        match *effect {
            Effect::LeaseDisplay { ticket, lease, ref connectors } => match &mut self.hardware {
                Hardware::Headless(_) => {
                    let message = "there is no hardware behind virtual screens that could be leased".into();
                    Some((ticket, Err(BackendFailure::Refused { message })))
                }
                Hardware::Real(real) => {
                    real.do_job(Job::Lease { ticket, lease, connectors: connectors.clone() });
                    None
                }
            },
            Effect::EndLease { lease } => {
                if let Some(descriptor) = self.leases.remove(&lease) {
                    // Nobody else claims it from now on.
                    let _ = descriptor.revoke();
                }
                if let Hardware::Real(real) = &mut self.hardware {
                    real.do_job(Job::EndLease(lease));
                }
                None
            }
            Effect::OpenNode { ticket, client } => match &mut self.hardware {
                Hardware::Headless(_) => {
                    let message = "there is no hardware behind virtual screens that could render".into();
                    Some((ticket, Err(BackendFailure::Refused { message })))
                }
                Hardware::Real(real) => {
                    real.do_job(Job::OpenNode { ticket, client });
                    None
                }
            },
            Effect::EndNode { client } => {
                if let Some(descriptor) = self.nodes.remove(&client) {
                    // Who has not claimed it will not have it.
                    let _ = descriptor.revoke();
                }
                None
            }
            Effect::OpenCard { ticket, client, card } => self.open_card(ticket, client, card),
            Effect::CloseCard { client, card } => {
                self.close_card(client, card);
                None
            }
            Effect::HandOver { ticket, to } => match &mut self.hardware {
                // Nobody else drives virtual screens.
                Hardware::Headless(_) => Some((ticket, Ok(()))),
                Hardware::Real(real) => {
                    real.do_job(Job::HandOver { ticket, to });
                    None
                }
            },
            // Messages, and what is carried out elsewhere.
            _ => None,
        }
    }

    pub(super) fn allocate(
        &mut self,
        surface: SurfaceId,
        config: SurfaceConfig,
        layout: SurfaceLayout,
    ) -> Result<(), keyway::Error> {
        let region = self.client.create_region(layout.bytes)?;
        self.surfaces.insert(surface, Buffer { region, config, layout, pixels: None });
        Ok(())
    }

    pub(super) fn grant_input(
        &mut self,
        client: ClientId,
        device: DeviceId,
        sharing: Sharing,
    ) -> Result<(), BackendFailure> {
        let shown = match sharing {
            Sharing::Shared => "",
            Sharing::Exclusive => "-exclusive",
        };
        let label = format!("{}input-{}{shown}", self.session_label(client), device.0);
        let (capability, source) = match &self.hardware {
            Hardware::Headless(_) => {
                // Each grant has events of its own, which nobody else reads.
                let (mut input, reader) = VirtualInput::new().map_err(|error| failure(&error))?;
                let capability = self.depositor.deposit(&label, &reader).map_err(|error| failure(&error))?;
                if device == KEYBOARD {
                    input.type_text(&self.options.keys).map_err(|error| failure(&error))?;
                }
                (capability, Source::Virtual { _input: input })
            }
            Hardware::Real(real) => {
                let fd = real.devices.open(device, sharing)?;
                let capability = self.depositor.deposit(&label, &fd).map_err(|error| failure(&error))?;
                (capability, Source::Real(fd))
            }
        };
        self.inputs.insert((client, device), Input { device: capability, source });
        Ok(())
    }

    /// Takes a device from whoever has it. Returns the number under which [`News::Revoked`] tells that it is done, if it is not yet.
    pub(super) fn revoke_input(&mut self, client: ClientId, device: DeviceId) -> Option<u64> {
        let input = self.inputs.remove(&(client, device))?;
        // Nobody else claims it from now on.
        let _ = input.device.revoke();
        match (input.source, &mut self.hardware) {
            (Source::Real(fd), Hardware::Real(real)) => Some(real.revoke(fd)),
            _ => None,
        }
    }

    /// Shows a surface. `None` when the answer comes later.
    pub(super) fn present(
        &mut self,
        ticket: Ticket,
        (connector, surface): (ConnectorId, SurfaceId),
        damage: Vec<Rectangle>,
    ) -> Result<Option<()>, String> {
        let buffer = self.surfaces.get_mut(&surface).ok_or("the surface has no buffer")?;
        let pixels = if let Some(pixels) = &buffer.pixels {
            Arc::clone(pixels)
        } else {
            let mapped = self.client.map_reader(&buffer.region).map_err(|error| error.to_string())?;
            Arc::clone(buffer.pixels.insert(Arc::new(mapped)))
        };
        let (config, layout) = (buffer.config, buffer.layout);
        let headless = match &mut self.hardware {
            Hardware::Real(real) => {
                real.do_job(Job::Show { ticket, connector, surface, pixels, config, layout, damage });
                return Ok(None);
            }
            Hardware::Headless(headless) => headless,
        };
        let shown = headless.show(connector, surface, &pixels, (&config, &layout), damage);
        shown.map_err(|error| error.to_string())?;
        if let Some(path) = &self.options.screenshot {
            headless.save(path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(Some(()))
    }

    pub(super) fn answer(
        &mut self,
        client: ClientId,
        request: RequestNumber,
        answer: &Answer,
        attached: Option<(SurfaceId, Access)>,
    ) {
        // Whoever asked may have gone.
        let Some((_, reply_to)) = self.calls.remove(&request) else { return };
        let descriptor = match answer {
            Answer::Document(GuiResponse::Granted { capability: Granted::InputDevice { device, .. } }) => {
                self.inputs.get(&(client, *device)).map(|input| &input.device)
            }
            Answer::DisplayLeased { lease } => self.leases.get(lease),
            Answer::GpuGranted(_) => self.nodes.get(&client),
            _ => None,
        };
        let buffer = attached.and_then(|(surface, access)| Some((self.surfaces.get(&surface)?, access)));
        let carried = descriptor.map(|descriptor| Carried::Copy(descriptor, Rights::CLAIM));
        let carried =
            carried.or(buffer.map(|(buffer, access)| Carried::Copy(&buffer.region, rights(access))));
        reply(&mut self.public, reply_to, answer, carried.as_slice());
    }

    pub(super) fn notify(&mut self, client: ClientId, event: &Event, attached: Option<(SurfaceId, Access)>) {
        let Some(lane) = self.clients.get(&client).and_then(|lanes| lanes.public.first()).copied() else {
            return;
        };
        let Ok(payload) = protocol::encode(event) else { return };
        let buffer = attached.and_then(|(surface, access)| Some((self.surfaces.get(&surface)?, access)));
        let descriptor = match event {
            Event::Granted { capability: Granted::InputDevice { device, .. } } => {
                self.inputs.get(&(client, *device)).map(|input| &input.device)
            }
            Event::GpuGranted(_) => self.nodes.get(&client),
            _ => None,
        };
        let carried = match (buffer, descriptor) {
            (Some((buffer, access)), _) => Some(Carried::Copy(&buffer.region, rights(access))),
            (None, Some(descriptor)) => Some(Carried::Copy(descriptor, Rights::CLAIM)),
            (None, None) => None,
        };
        let capabilities = carried.as_slice();
        let message = Outgoing { payload: &payload, capabilities, ..Outgoing::default() };
        // One that does not take its events loses them.
        let sent = self.public.notify(lane, &message);
        // The compositor has made a call to become one: whoever is early has no buffer attached.
        if let (Err(keyway::Error::NoReplyExpected), None) = (sent, attached) {
            let early = self.early.entry(client).or_default();
            if early.len() < EARLY_MAX {
                early.push(event.clone());
            }
        }
    }

    /// A client that has just opened its lane says in its first message where to send events.
    pub(super) fn send_early(&mut self) {
        for (client, events) in std::mem::take(&mut self.early) {
            for event in events {
                self.notify(client, &event, None);
            }
        }
    }

    pub(super) fn watch(&mut self, client: ClientId) {
        let Some((introduced, process)) = self.introduced.take() else { return };
        if introduced != client {
            return;
        }
        match process.watch() {
            Ok(watch) => drop(self.watches.insert(client, (watch, process))),
            // It has ended meanwhile.
            Err(_) => self.forget(client),
        }
    }
}

/// Answers a call.
pub(super) fn reply(queue: &mut Queue, reply_to: ReplyTo, answer: &Answer, carried: &[Carried<'_>]) {
    // An answer that is too long for its lane was bounded by the machine; a caller that is gone needs none.
    if let Ok(payload) = protocol::encode(answer) {
        let message = Outgoing { payload: &payload, capabilities: carried, ..Outgoing::default() };
        let _ = queue.reply(reply_to, &message);
    }
}

fn rights(access: Access) -> Rights {
    match access {
        Access::Write => Rights::WRITE | Rights::MAP,
        Access::Read => Rights::MAP,
    }
}

fn failure(error: &dyn std::fmt::Display) -> BackendFailure {
    BackendFailure::Refused { message: error.to_string() }
}
