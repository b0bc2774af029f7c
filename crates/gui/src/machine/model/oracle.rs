//! The oracle: the rules once more, as flat lists that are searched, without plans, indexes or effects.

use std::{format, string::String, vec, vec::Vec};

use super::{ConnectorId, DeviceId, MODE, node};
use crate::{
    machine::Door,
    protocol::{
        Answer, BufferKind, Capability, DenialReason, Enforcer, GpuCapability, GpuGrant, GpuLimits,
        GrantTerms, GuiRequest, GuiResponse, LeaseId, Pid, Rectangle, Request, Revocation, SurfaceConfig,
        SurfaceId,
    },
};

/// Answers, with whom they go to.
pub(super) type Said = Vec<(u64, Answer)>;

#[derive(Default)]
pub(super) struct Oracle {
    /// Number, and whether it came by the compositor's door. The pid is 100 + number.
    clients: Vec<(u64, bool)>,
    compositor: Option<u64>,
    /// Number and pid that it was registered under.
    applications: Vec<(u64, Pid)>,
    has_node: bool,
    /// Holder, and whether it was told.
    gpu: Vec<(u64, GpuLimits, bool)>,
    /// Number, owner, bytes, stride, whether it is made, and its sides.
    surfaces: Vec<(u64, u64, u64, u32, bool, [u32; 2])>,
    surfaces_ever: u64,
    /// Number, and whether it is exclusive.
    inputs: Vec<(u32, bool)>,
    /// Number, and whether it is made. There is one connector to be leased.
    leases: Vec<(u64, bool)>,
    leases_ever: u64,
    /// Asker, work, and whether it is 'w'aited for, 'l'ate or 'o'rphaned.
    open: Vec<(u64, Work, char)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Display,
    Surface(u64, u64),
    Input(u32, bool),
    Lease(u64),
    /// Whose.
    Node(u64),
}

fn denied(reason: DenialReason) -> Answer {
    Answer::Document(GuiResponse::Denied { reason })
}

/// Stride and bytes, by the plainest arithmetic.
fn layout(config: &SurfaceConfig) -> Option<(u32, u64)> {
    let pixel = match &config.format.0.to_le_bytes() {
        b"XR24" | b"AR24" | b"XB24" | b"AB24" => 4_u64,
        b"RG16" => 2,
        _ => return None,
    };
    let row = u64::from(config.width) * pixel;
    let stride = config.stride.map_or(row.div_ceil(64) * 64, u64::from);
    let is_sane = (1..=16_384).contains(&config.width)
        && (1..=16_384).contains(&config.height)
        && (row..=65_536).contains(&stride)
        && stride.is_multiple_of(pixel);
    let pages = (stride * u64::from(config.height)).div_ceil(4096);
    is_sane.then_some((stride as u32, pages * 4096))
}

impl Oracle {
    /// For a machine that has a render node, or none.
    pub(super) fn with_node(has_node: bool) -> Self {
        Oracle { has_node, ..Oracle::default() }
    }

    pub(super) fn open(&mut self, client: u64, door: Door) -> Said {
        let by_door = door == Door::Compositor;
        match self.clients.iter_mut().find(|known| known.0 == client) {
            Some(known) => known.1 |= by_door,
            None => self.clients.push((client, by_door)),
        }
        let is_another = |&(id, pid): &(u64, Pid)| id == client && pid != Pid(100 + client as u32);
        if self.applications.iter().any(is_another) {
            return self.end_application(client, DenialReason::Unauthorized, Some(client));
        }
        vec![]
    }

    pub(super) fn gone(&mut self, client: u64) -> Said {
        self.clients.retain(|known| known.0 != client);
        if self.compositor == Some(client) {
            self.end_compositor()
        } else if self.applications.iter().any(|application| application.0 == client) {
            self.end_application(client, DenialReason::Unauthorized, None)
        } else {
            vec![]
        }
    }

    fn end_compositor(&mut self) -> Said {
        let gone = DenialReason::Other(2);
        let compositor = self.compositor.take().unwrap();
        self.inputs.clear();
        self.leases.retain(|lease| !lease.1);
        let mut said = self.end_application(compositor, gone, None);
        for (application, _) in self.applications.clone() {
            said.extend(self.end_application(application, gone, None));
        }
        said
    }

    /// Ends what anybody holds. `not_yet` has opened its lane in this very step, so it is told nothing.
    fn end_application(&mut self, ended: u64, reason: DenialReason, not_yet: Option<u64>) -> Said {
        self.applications.retain(|application| application.0 != ended);
        self.gpu.retain(|gpu| gpu.0 != ended);
        self.surfaces.retain(|surface| surface.1 != ended);
        let mut said = vec![];
        for (asker, work, wait) in &mut self.open {
            if *asker != ended && *work == Work::Node(ended) {
                if *wait == 'w' {
                    said.push((*asker, denied(DenialReason::Unauthorized)));
                }
                *wait = 'o';
            }
            if *asker == ended {
                let listens = self.clients.iter().any(|known| known.0 == ended) && not_yet != Some(ended);
                if *wait == 'w' && listens {
                    said.push((ended, denied(reason)));
                }
                *wait = 'o';
            }
        }
        said
    }

    pub(super) fn expire(&mut self) -> Said {
        let mut said = vec![];
        for (asker, _, wait) in &mut self.open {
            if *wait == 'w' {
                *wait = 'l';
                said.push((*asker, denied(DenialReason::Other(1))));
            }
        }
        said
    }

    pub(super) fn backend(&mut self, position: usize, is_ok: bool) -> Said {
        let (asker, work, wait) = self.open.remove(position);
        if let Work::Surface(id, _) = work
            && (!is_ok || wait == 'l')
        {
            self.surfaces.retain(|surface| surface.0 != id);
        }
        if let Work::Lease(id) = work
            && (!is_ok || wait != 'w')
        {
            self.leases.retain(|lease| lease.0 != id);
        }
        if let Work::Node(holder) = work
            && (wait == 'l' || wait == 'w' && !is_ok)
        {
            self.gpu.retain(|gpu| gpu.0 != holder);
        }
        if wait != 'w' {
            return vec![];
        }
        if !is_ok {
            return vec![(asker, Answer::Document(GuiResponse::Error { message: "no".into() }))];
        }
        let answer = match work {
            Work::Display => Answer::Document(GuiResponse::Success),
            Work::Surface(id, bytes) => {
                let surface = self.surfaces.iter_mut().find(|surface| surface.0 == id).unwrap();
                surface.4 = true;
                Answer::SurfaceCreated {
                    surface: SurfaceId(id),
                    stride: surface.3,
                    bytes,
                    buffer: BufferKind::Memfd,
                }
            }
            Work::Node(holder) => {
                let gpu = self.gpu.iter_mut().find(|gpu| gpu.0 == holder).unwrap();
                gpu.2 = true;
                let GpuLimits { memory_mb, max_surfaces } = gpu.1;
                if asker == holder {
                    Answer::GpuGranted(GpuGrant {
                        capability: GpuCapability { memory_mb, max_surfaces },
                        surfaces: GrantTerms { memory: Enforcer::Bridge, revocation: Revocation::WithGrant },
                        node: node(),
                        node_terms: GrantTerms {
                            memory: Enforcer::Nobody,
                            revocation: Revocation::Irrevocable,
                        },
                    })
                } else {
                    let capability = Capability::GpuRendering { memory_mb, max_surfaces };
                    Answer::Document(GuiResponse::Granted { capability })
                }
            }
            Work::Lease(id) => {
                self.leases.iter_mut().find(|lease| lease.0 == id).unwrap().1 = true;
                Answer::DisplayLeased { lease: LeaseId(id) }
            }
            Work::Input(device, exclusive) => {
                self.inputs.push((device, exclusive));
                let capability = Capability::InputDevice { device: DeviceId(device), exclusive };
                Answer::Document(GuiResponse::Granted { capability })
            }
        };
        vec![(asker, answer)]
    }

    /// What is answered at once; nothing to the asker if it waits.
    pub(super) fn ask(&mut self, client: u64, request: &Request) -> Said {
        let mut said = vec![];
        let judged = if self.clients.iter().any(|known| known.0 == client) {
            self.judge(client, request, &mut said)
        } else {
            Err(DenialReason::Unauthorized)
        };
        match judged {
            Ok(Some(response)) => said.push((client, Answer::Document(response))),
            Ok(None) => {}
            Err(reason) => said.push((client, denied(reason))),
        }
        said
    }

    /// The response, or none if it waits; what others are told goes to `said`.
    fn judge(
        &mut self,
        client: u64,
        request: &Request,
        said: &mut Said,
    ) -> Result<Option<GuiResponse>, DenialReason> {
        let is_compositor = self.compositor == Some(client);
        match *request {
            Request::Document(ref document) => self.judge_document(client, document, said),
            Request::RequestExclusiveInput { pid, device } => self.judge_input(client, pid, device, true),
            _ if !is_compositor => Err(DenialReason::Unauthorized),
            Request::RegisterApplication { pid, process } => {
                let is_taken = self.applications.iter().any(|known| known.0 == process || known.1 == pid);
                if process == client || is_own(client, pid) || is_taken {
                    return Err(DenialReason::AlreadyHeld);
                }
                if self.clients.iter().any(|known| known.0 == process) && !is_own(process, pid) {
                    return Err(DenialReason::Unauthorized);
                }
                self.applications.push((process, pid));
                Ok(Some(GuiResponse::Success))
            }
            Request::UnregisterApplication { pid } => {
                let known = self.applications.iter().find(|known| known.1 == pid);
                let (application, _) = *known.ok_or(DenialReason::Unauthorized)?;
                said.extend(self.end_application(application, DenialReason::Unauthorized, None));
                Ok(Some(GuiResponse::Success))
            }
            Request::PresentSurface { connector, surface, ref damage } => {
                let live = self.surfaces.iter().find(|known| known.0 == surface.0 && known.4);
                let live =
                    live.filter(|_| connector == ConnectorId(10)).ok_or(DenialReason::DeviceNotFound)?;
                let [width, height] = live.5.map(u64::from);
                let is_senseless = |part: &Rectangle| {
                    let [x, y, across, down] = [part.x, part.y, part.width, part.height].map(u64::from);
                    across == 0 || down == 0 || x + across > width || y + down > height
                };
                if damage.iter().any(is_senseless) {
                    return Err(DenialReason::InvalidConfig);
                }
                self.wait_for_display(client)
            }
            Request::LeaseDisplay { ref connectors } => self.judge_lease(client, connectors),
            Request::EndLease { lease } => {
                if !self.leases.contains(&(lease.0, true)) {
                    return Err(DenialReason::DeviceNotFound);
                }
                self.leases.retain(|known| known.0 != lease.0);
                Ok(Some(GuiResponse::Success))
            }
            _ => Ok(None),
        }
    }

    fn judge_document(
        &mut self,
        client: u64,
        document: &GuiRequest,
        said: &mut Said,
    ) -> Result<Option<GuiResponse>, DenialReason> {
        let is_compositor = self.compositor == Some(client);
        match *document {
            GuiRequest::RequestGpu { pid, limits } => self.judge_gpu(client, pid, limits),
            GuiRequest::CreateSurface { pid, config } => self.judge_create(client, pid, &config),
            GuiRequest::DestroySurface { pid, surface } => self.judge_destroy(client, pid, surface),
            GuiRequest::RequestInputDevice { pid, device } => self.judge_input(client, pid, device, false),
            GuiRequest::SetDisplayMode { .. } if !is_compositor => Err(DenialReason::Unauthorized),
            GuiRequest::SetDisplayMode { connector, .. } if connector.0 != 10 => {
                Err(DenialReason::DeviceNotFound)
            }
            GuiRequest::SetDisplayMode { mode, .. } if mode != MODE => Err(DenialReason::InvalidConfig),
            GuiRequest::SetDisplayMode { .. } => self.wait_for_display(client),
            GuiRequest::QueryDeviceType => Ok(Some(GuiResponse::DeviceType { is_mobile: false })),
            GuiRequest::RegisterCompositor { pid } => {
                if !is_own(client, pid) || !self.clients.contains(&(client, true)) {
                    return Err(DenialReason::Unauthorized);
                }
                if self.compositor.is_some() {
                    return Err(DenialReason::AlreadyHeld);
                }
                self.compositor = Some(client);
                Ok(Some(GuiResponse::Success))
            }
            GuiRequest::UnregisterCompositor { pid } => {
                if !is_own(client, pid) || !is_compositor {
                    return Err(DenialReason::Unauthorized);
                }
                said.extend(self.end_compositor());
                Ok(Some(GuiResponse::Success))
            }
            GuiRequest::HasCapability { pid, capability } => {
                let about = self.speaks_for(client, pid).ok_or(DenialReason::Unauthorized)?;
                Ok(Some(GuiResponse::HasCapabilityResult { has_capability: self.holds(about, capability) }))
            }
        }
    }

    fn judge_input(
        &mut self,
        client: u64,
        pid: Pid,
        DeviceId(device): DeviceId,
        exclusive: bool,
    ) -> Result<Option<GuiResponse>, DenialReason> {
        if !is_own(client, pid) || self.compositor != Some(client) {
            return Err(DenialReason::Unauthorized);
        }
        if device > 21 {
            return Err(DenialReason::DeviceNotFound);
        }
        let either = [Work::Input(device, false), Work::Input(device, true)];
        let is_under_way = self.open.iter().any(|open| open.0 == client && either.contains(&open.1));
        if self.inputs.iter().any(|input| input.0 == device) || is_under_way {
            return Err(DenialReason::AlreadyHeld);
        }
        self.wait(client, Work::Input(device, exclusive))
    }

    fn judge_lease(
        &mut self,
        client: u64,
        connectors: &[ConnectorId],
    ) -> Result<Option<GuiResponse>, DenialReason> {
        match connectors {
            [] | [ConnectorId(10), ConnectorId(10)] => Err(DenialReason::InvalidConfig),
            [ConnectorId(10)] if !self.leases.is_empty() => Err(DenialReason::AlreadyHeld),
            [ConnectorId(10)] if self.is_full(client) => Err(DenialReason::ResourceLimitExceeded),
            [ConnectorId(10)] => {
                self.leases_ever += 1;
                self.leases.push((self.leases_ever, false));
                self.wait(client, Work::Lease(self.leases_ever))
            }
            _ => Err(DenialReason::DeviceNotFound),
        }
    }

    fn wait_for_display(&mut self, client: u64) -> Result<Option<GuiResponse>, DenialReason> {
        if self.leases.is_empty() { self.wait(client, Work::Display) } else { Err(DenialReason::AlreadyHeld) }
    }

    fn judge_gpu(
        &mut self,
        client: u64,
        pid: Pid,
        limits: GpuLimits,
    ) -> Result<Option<GuiResponse>, DenialReason> {
        let GpuLimits { memory_mb, max_surfaces } = limits;
        let holder = self.speaks_for(client, pid).ok_or(DenialReason::Unauthorized)?;
        let is_application = self.applications.iter().any(|known| known.0 == holder);
        if self.compositor != Some(holder) && !is_application {
            return Err(DenialReason::Unauthorized);
        }
        let is_under_way = self.open.iter().any(|open| open.1 == Work::Node(holder));
        if self.gpu.iter().any(|gpu| gpu.0 == holder) || is_under_way {
            return Err(DenialReason::AlreadyHeld);
        }
        if memory_mb == 0 || max_surfaces == 0 {
            return Err(DenialReason::InvalidConfig);
        }
        if memory_mb > 1024 || max_surfaces > 256 || self.reserved_mb() + u64::from(memory_mb) > 4096 {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        let comes_with_node = self.has_node && self.clients.iter().any(|known| known.0 == holder);
        if comes_with_node && self.is_full(client) {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        self.gpu.push((holder, limits, !comes_with_node));
        if comes_with_node {
            return self.wait(client, Work::Node(holder));
        }
        let capability = Capability::GpuRendering { memory_mb, max_surfaces };
        Ok(Some(GuiResponse::Granted { capability }))
    }

    fn judge_create(
        &mut self,
        client: u64,
        pid: Pid,
        config: &SurfaceConfig,
    ) -> Result<Option<GuiResponse>, DenialReason> {
        let held = self.gpu.iter().find(|gpu| gpu.0 == client && gpu.2 && is_own(client, pid));
        let (_, limits, _) = *held.ok_or(DenialReason::Unauthorized)?;
        let (stride, bytes) = layout(config).ok_or(DenialReason::InvalidConfig)?;
        let own: Vec<_> = self.surfaces.iter().filter(|surface| surface.1 == client).collect();
        if own.len() as u32 >= limits.max_surfaces
            || own.iter().map(|surface| surface.2).sum::<u64>() + bytes > u64::from(limits.memory_mb) << 20
            || self.is_full(client)
        {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        self.surfaces_ever += 1;
        let id = self.surfaces_ever;
        self.surfaces.push((id, client, bytes, stride, false, [config.width, config.height]));
        self.wait(client, Work::Surface(id, bytes))
    }

    fn judge_destroy(
        &mut self,
        client: u64,
        pid: Pid,
        id: SurfaceId,
    ) -> Result<Option<GuiResponse>, DenialReason> {
        if !is_own(client, pid) {
            return Err(DenialReason::Unauthorized);
        }
        let live = self.surfaces.iter().find(|surface| surface.0 == id.0 && surface.4);
        if live.ok_or(DenialReason::DeviceNotFound)?.1 != client {
            return Err(DenialReason::Unauthorized);
        }
        self.surfaces.retain(|surface| surface.0 != id.0);
        Ok(Some(GuiResponse::Success))
    }

    fn is_full(&self, client: u64) -> bool {
        self.open.iter().filter(|open| open.0 == client).count() >= 8
    }

    fn wait(&mut self, client: u64, work: Work) -> Result<Option<GuiResponse>, DenialReason> {
        if self.is_full(client) {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        self.open.push((client, work, 'w'));
        Ok(None)
    }

    fn speaks_for(&self, client: u64, pid: Pid) -> Option<u64> {
        if is_own(client, pid) {
            return Some(client);
        }
        let known = self.applications.iter().find(|known| known.1 == pid);
        known.filter(|_| self.compositor == Some(client)).map(|known| known.0)
    }

    fn holds(&self, about: u64, capability: Capability) -> bool {
        let is_compositor = self.compositor == Some(about);
        let gpu = self.gpu.iter().find(|gpu| gpu.0 == about && gpu.2).map(|gpu| gpu.1);
        match capability {
            Capability::GpuRendering { memory_mb, max_surfaces } => {
                gpu.is_some_and(|gpu| gpu.memory_mb >= memory_mb && gpu.max_surfaces >= max_surfaces)
            }
            Capability::InputDevice { device, exclusive } => {
                let enough = [(device.0, true), (device.0, exclusive)];
                is_compositor && self.inputs.iter().any(|input| enough.contains(input))
            }
            Capability::DisplayControl { connector } => is_compositor && connector.0 == 10,
            Capability::SurfaceManagement => gpu.is_some(),
            Capability::Compositor => is_compositor,
        }
    }

    fn reserved_mb(&self) -> u64 {
        let promised: u64 = self.gpu.iter().map(|gpu| u64::from(gpu.1.memory_mb)).sum();
        let mut orphaned = 0_u64;
        for (_, work, wait) in &self.open {
            if let (Work::Surface(_, bytes), 'o') = (work, wait) {
                orphaned += bytes;
            }
        }
        promised + orphaned.div_ceil(1_u64 << 20)
    }

    /// The state in words, to compare.
    pub(super) fn state(&self) -> String {
        let mut applications: Vec<_> = self.applications.iter().map(|known| known.0).collect();
        applications.sort_unstable();
        let charged = |client| -> u64 {
            self.surfaces.iter().filter(|surface| surface.1 == client).map(|surface| surface.2).sum()
        };
        let gpu =
            self.gpu.iter().map(|gpu| (gpu.0, gpu.1.memory_mb, gpu.1.max_surfaces, charged(gpu.0), gpu.2));
        let mut gpu: Vec<_> = gpu.collect();
        gpu.sort_unstable();
        let surfaces: Vec<_> =
            self.surfaces.iter().map(|surface| (surface.0, surface.1, surface.4)).collect();
        let mut inputs = self.inputs.clone();
        inputs.sort_unstable();
        format!(
            "{:?} {applications:?} {gpu:?} {surfaces:?} {inputs:?} {} {} {}",
            self.compositor,
            self.open.len(),
            self.reserved_mb(),
            self.leases.len()
        )
    }
}

fn is_own(client: u64, pid: Pid) -> bool {
    pid == Pid(100 + client as u32)
}
