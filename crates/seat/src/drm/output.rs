//! One connector with what feeds it: CRTC, primary plane, two buffers.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use drm::control::{
    AtomicCommitFlags, ClipRect, Device as _, Mode, ModeFlags, ModeTypeFlags, PageFlipFlags,
    atomic::AtomicModeReq, connector, crtc, framebuffer, plane, property,
};
use keyway::RegionReader;
use keyway_gui::{
    Ticket,
    protocol::{ConnectorId, ConnectorInfo, DisplayMode, Rectangle, SurfaceConfig, SurfaceId, SurfaceLayout},
};

use super::{
    card::Card,
    scanout::{Black, Scanout},
};
use crate::{damage::Damage, screen::ShowError};

/// A picture to be shown.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) ticket: Ticket,
    pub(super) surface: SurfaceId,
    pub(super) pixels: Arc<RegionReader>,
    pub(super) config: SurfaceConfig,
    pub(super) layout: SurfaceLayout,
    /// What differs from what the screen showed of the surface last.
    pub(super) damage: Damage,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) id: ConnectorId,
    connector: connector::Handle,
    name: String,
    modes: Vec<(DisplayMode, Mode)>,
    /// What it showed when the bridge came.
    initial: Option<Shown>,
    screen: Option<Screen>,
    /// What a mode shows at first.
    black: Option<Black>,
    /// Who waits for the picture that is on its way to the screen, and since when.
    flipping: Option<(Ticket, Instant)>,
    /// What is to be shown after that. LIMIT: each is a request that waits, of which the bridge bounds the number.
    queue: VecDeque<Picture>,
    surface: Option<SurfaceId>,
    /// The CRTC that somebody else drives it with.
    lent: Option<crtc::Handle>,
    /// Diagonal of a built-in panel, in millimetres.
    pub(super) panel_mm: Option<u32>,
}

/// After so long a picture that is on its way is lost: a screen shows at least some in a second.
const FLIP_PATIENCE: Duration = Duration::from_secs(1);

/// What a CRTC showed.
#[derive(Clone, Copy, Debug)]
struct Shown {
    crtc: crtc::Handle,
    mode: Option<Mode>,
    framebuffer: Option<framebuffer::Handle>,
    position: (u32, u32),
}

/// What the bridge shows.
#[derive(Debug)]
struct Screen {
    crtc: crtc::Handle,
    mode: DisplayMode,
    /// Of the mode, in pixels.
    size: (u32, u32),
    /// What is shown before the first picture.
    black: framebuffer::Handle,
    /// How the driver is told what has changed, where it can be told.
    clips: Option<Clips>,
    /// What pictures are drawn into; made for the first one.
    drawn: Option<Drawn>,
}

#[derive(Debug)]
struct Drawn {
    buffers: [Scanout; 2],
    /// Which of them is seen, or about to be; neither if the first picture could not be shown.
    front: Option<usize>,
}

impl Screen {
    fn framebuffer(&self) -> framebuffer::Handle {
        let front = self.drawn.as_ref().and_then(|drawn| Some(&drawn.buffers[drawn.front?]));
        front.map_or(self.black, |front| front.framebuffer)
    }

    /// Draws a surface, in which this has changed, and has it seen from the next picture on.
    fn show(
        &mut self,
        card: &Card,
        pixels: &RegionReader,
        shape: (&SurfaceConfig, &SurfaceLayout),
        damage: &Damage,
    ) -> Result<(), ShowError> {
        let drawn = match &mut self.drawn {
            Some(drawn) => drawn,
            none => none.insert(Drawn { buffers: Scanout::pair(card, self.size)?, front: None }),
        };
        drawn.buffers.iter_mut().for_each(|buffer| buffer.spoil(damage));
        let back = drawn.front.map_or(0, |front| 1 - front);
        let buffer = &mut drawn.buffers[back];
        let parts = buffer.draw(card, pixels, shape)?;
        if let Err(error) = flip(card, (self.crtc, self.clips), buffer.framebuffer, parts.as_deref()) {
            // What it holds is not what its screen was last said to show.
            buffer.spoil(&Damage::All);
            return Err(error.into());
        }
        drawn.front = Some(back);
        Ok(())
    }

    fn free(self, card: &Card) {
        self.drawn.into_iter().flat_map(|drawn| drawn.buffers).for_each(|buffer| buffer.free(card));
    }
}

/// Where a plane is told which buffer to show, and what of it has changed: `FB_DAMAGE_CLIPS` of `drm_plane(9)`.
#[derive(Clone, Copy, Debug)]
struct Clips {
    plane: plane::Handle,
    framebuffer: property::Handle,
    damage: property::Handle,
}

impl Clips {
    /// None where modes are not set atomically, or the driver reads everything anyway.
    fn of(card: &Card, crtc: crtc::Handle) -> Option<Self> {
        let plane = card.is_atomic.then(|| card.primary_plane(crtc)).and_then(Result::ok).flatten()?;
        let framebuffer = card.property(plane, "FB_ID").ok()?;
        Some(Clips { plane, framebuffer, damage: card.property(plane, "FB_DAMAGE_CLIPS").ok()? })
    }

    /// Shows a buffer with the next picture of the screen, of which the driver need read only these parts.
    fn flip(&self, card: &Card, framebuffer: framebuffer::Handle, parts: &[Rectangle]) -> io::Result<()> {
        // `struct drm_mode_rect`: the first column and row, and those after the last. All are within a screen.
        let edges = |part: &Rectangle| [part.x, part.y, part.x + part.width, part.y + part.height];
        let edges: Vec<[u32; 4]> = parts.iter().map(edges).collect();
        let blob = card.create_property_blob(edges.as_slice())?;
        let mut request = AtomicModeReq::new();
        let shown = property::Value::Framebuffer(Some(framebuffer));
        request.add_property(self.plane, self.framebuffer, shown);
        request.add_property(self.plane, self.damage, blob);
        let flags = AtomicCommitFlags::PAGE_FLIP_EVENT | AtomicCommitFlags::NONBLOCK;
        let done = card.atomic_commit(flags, request);
        if let property::Value::Blob(blob) = blob {
            let _ = card.destroy_property_blob(blob);
        }
        done
    }
}

impl Output {
    /// A connector to which something is connected, with modes.
    pub(super) fn read(
        card: &Card,
        id: ConnectorId,
        handle: connector::Handle,
        probe: bool,
    ) -> io::Result<Option<Self>> {
        let info = card.get_connector(handle, probe)?;
        if info.state() != connector::State::Connected || info.modes().is_empty() {
            return Ok(None);
        }
        let mut modes: Vec<(DisplayMode, Mode)> =
            info.modes().iter().filter_map(|mode| Some((described(mode)?, *mode))).collect();
        // The preferred one first; among equals the driver's order holds.
        modes.sort_by_key(|(_, mode)| !mode.mode_type().contains(ModeTypeFlags::PREFERRED));
        let initial = match info.current_encoder() {
            Some(encoder) => card.get_encoder(encoder)?.crtc(),
            None => None,
        };
        let initial = initial.map(|crtc| card.get_crtc(crtc)).transpose()?.map(|crtc| Shown {
            crtc: crtc.handle(),
            mode: crtc.mode(),
            framebuffer: crtc.framebuffer(),
            position: crtc.position(),
        });
        Ok(Some(Output {
            id,
            connector: handle,
            name: format!("{}-{info}", card.node.name),
            modes,
            initial,
            screen: None,
            black: None,
            flipping: None,
            queue: VecDeque::new(),
            surface: None,
            lent: None,
            panel_mm: panel_mm(&info),
        }))
    }

    pub(super) fn info(&self) -> ConnectorInfo {
        let before = self.initial.and_then(|shown| shown.mode).and_then(|mode| described(&mode));
        ConnectorInfo {
            id: self.id,
            name: self.name.clone(),
            modes: self.modes.iter().map(|(mode, _)| *mode).collect(),
            current: self.screen.as_ref().map(|screen| screen.mode).or(before),
        }
    }

    /// Takes the modes of a later look; what is shown stays.
    pub(super) fn take_modes(&mut self, later: Output) {
        self.modes = later.modes;
        self.panel_mm = later.panel_mm;
    }

    /// The CRTC that it uses.
    pub(super) fn crtc(&self) -> Option<crtc::Handle> {
        self.lent.or(self.screen.as_ref().map(|screen| screen.crtc))
    }

    pub(super) fn connector(&self) -> connector::Handle {
        self.connector
    }

    /// The CRTC by which somebody else is to drive it from now on, until it is restored.
    pub(super) fn lend(&mut self, crtc: crtc::Handle) {
        self.lent = Some(crtc);
    }

    /// Sets a mode, black. `taken` are the CRTCs of others.
    pub(super) fn set_mode(
        &mut self,
        card: &Card,
        mode: DisplayMode,
        taken: &[crtc::Handle],
    ) -> io::Result<()> {
        let known = self.modes.iter().find(|(known, _)| *known == mode);
        let raw =
            known.ok_or_else(|| io::Error::other(format!("{} has no such mode any more", self.name)))?.1;
        let crtc = self.choose_crtc(card, taken)?;
        let size = (u32::from(raw.size().0), u32::from(raw.size().1));
        // Nothing is made, drawn or cleared for a mode that is no larger than one before: that takes longer than to set it.
        let (black, larger) = match &mut self.black {
            Some(black) if black.holds(size) => (black.framebuffer(card, size)?, None),
            _ => {
                let (larger, framebuffer) = Black::new(card, size)?;
                (framebuffer, Some(larger))
            }
        };
        if let Err(error) = self.commit(card, crtc, raw, black) {
            if let Some(larger) = larger {
                larger.free(card);
            }
            return Err(error);
        }
        self.surface = None;
        let screen = Screen { crtc, mode, size, black, clips: Clips::of(card, crtc), drawn: None };
        if let Some(before) = self.screen.replace(screen) {
            before.free(card);
        }
        if let Some(larger) = larger
            && let Some(before) = self.black.replace(larger)
        {
            before.free(card);
        }
        Ok(())
    }

    /// The CRTC that drives the connector already, else one that can and is free.
    pub(super) fn choose_crtc(&self, card: &Card, taken: &[crtc::Handle]) -> io::Result<crtc::Handle> {
        if let Some(screen) = &self.screen {
            return Ok(screen.crtc);
        }
        let resources = card.resource_handles()?;
        let mut candidates: Vec<crtc::Handle> = self.initial.iter().map(|shown| shown.crtc).collect();
        for encoder in card.get_connector(self.connector, false)?.encoders() {
            candidates.extend(resources.filter_crtcs(card.get_encoder(*encoder)?.possible_crtcs()));
        }
        let free = candidates.into_iter().find(|crtc| !taken.contains(crtc));
        free.ok_or_else(|| io::Error::other(format!("{}: the card can show no further picture", self.name)))
    }

    /// Asks the driver first where it can be asked, and then does it.
    fn commit(
        &self,
        card: &Card,
        crtc: crtc::Handle,
        mode: Mode,
        framebuffer: framebuffer::Handle,
    ) -> io::Result<()> {
        let plane = if card.is_atomic { card.primary_plane(crtc)? } else { None };
        let Some(plane) = plane else {
            return card.set_crtc(crtc, Some(framebuffer), (0, 0), &[self.connector], Some(mode));
        };
        let blob = card.create_property_blob(&mode)?;
        let (width, height) = (u64::from(mode.size().0), u64::from(mode.size().1));
        let mut request = AtomicModeReq::new();
        let on = property::Value::CRTC(Some(crtc));
        request.add_property(self.connector, card.property(self.connector, "CRTC_ID")?, on);
        request.add_property(crtc, card.property(crtc, "MODE_ID")?, blob);
        request.add_property(crtc, card.property(crtc, "ACTIVE")?, property::Value::Boolean(true));
        let shown = property::Value::Framebuffer(Some(framebuffer));
        request.add_property(plane, card.property(plane, "FB_ID")?, shown);
        request.add_property(plane, card.property(plane, "CRTC_ID")?, on);
        // Of the buffer in 1/65536 of a pixel, of the screen in pixels: `drm_plane(9)`.
        let figures = [
            ("SRC_X", 0),
            ("SRC_Y", 0),
            ("SRC_W", width << 16),
            ("SRC_H", height << 16),
            ("CRTC_X", 0),
            ("CRTC_Y", 0),
            ("CRTC_W", width),
            ("CRTC_H", height),
        ];
        for (name, figure) in figures {
            request.add_property(plane, card.property(plane, name)?, property::Value::UnsignedRange(figure));
        }
        let modeset = AtomicCommitFlags::ALLOW_MODESET;
        let done = card
            .atomic_commit(modeset | AtomicCommitFlags::TEST_ONLY, request.clone())
            .map_err(|error| io::Error::other(format!("{}: the driver refuses the mode: {error}", self.name)))
            .and_then(|()| card.atomic_commit(modeset, request));
        if let property::Value::Blob(blob) = blob {
            let _ = card.destroy_property_blob(blob);
        }
        done
    }

    /// Shows a picture as soon as the one before it is on the screen. The mode must be set.
    pub(super) fn show(&mut self, card: &Card, picture: Picture) -> Result<(), (Ticket, ShowError)> {
        self.queue.push_back(picture);
        self.show_next(card)
    }

    /// Begins with the next picture, if there is one and nothing is on its way.
    pub(super) fn show_next(&mut self, card: &Card) -> Result<(), (Ticket, ShowError)> {
        if self.flipping.is_some_and(|(_, since)| since.elapsed() < FLIP_PATIENCE) {
            return Ok(());
        }
        let Some(Picture { ticket, surface, pixels, config, layout, damage }) = self.queue.pop_front() else {
            return Ok(());
        };
        let Some(screen) = &mut self.screen else { return Err((ticket, ShowError::Dark)) };
        let damage = if self.surface == Some(surface) { damage } else { Damage::All };
        screen.show(card, &pixels, (&config, &layout), &damage).map_err(|error| (ticket, error))?;
        self.flipping = Some((ticket, Instant::now()));
        self.surface = Some(surface);
        Ok(())
    }

    /// The picture is on the screen: who waited for that.
    pub(super) fn on_flip(&mut self) -> Option<Ticket> {
        self.flipping.take().map(|(ticket, _)| ticket)
    }

    /// Takes a surface off the screen, and what of it was to be shown. Returns who waited for that.
    pub(super) fn hide(&mut self, card: &Card, surface: SurfaceId) -> Vec<Ticket> {
        let (gone, left): (VecDeque<Picture>, _) =
            self.queue.drain(..).partition(|picture| picture.surface == surface);
        self.queue = left;
        if self.surface == Some(surface) {
            self.surface = None;
            // Drawn on in front of everybody: what was there is to be gone now.
            if let Some(drawn) = self.screen.as_mut().and_then(|screen| screen.drawn.as_mut()) {
                for buffer in &mut drawn.buffers {
                    let _ = buffer.blank(card);
                }
                if let Some(front) = drawn.front.map(|front| &drawn.buffers[front]) {
                    // A driver that copies is told that there is something to copy; others need no telling.
                    let _ = card.dirty_framebuffer(front.framebuffer, &[front.all()]);
                }
            }
        }
        gone.into_iter().map(|picture| picture.ticket).collect()
    }

    /// Somebody else drives the screen from now on. Returns who waited for a picture.
    pub(super) fn stand_still(&mut self) -> Vec<Ticket> {
        let waiting = self.on_flip().into_iter();
        waiting.chain(self.queue.drain(..).map(|picture| picture.ticket)).collect()
    }

    /// Shows again what it showed before somebody else drove the screen. What is lent is for its holder to show.
    pub(super) fn show_again(&mut self, card: &Card) -> io::Result<()> {
        if self.lent.is_some() {
            return Ok(());
        }
        let Some(screen) = &self.screen else { return self.show_initial(card) };
        let known = self.modes.iter().find(|(known, _)| *known == screen.mode);
        let raw = known.ok_or_else(|| io::Error::other(format!("{} has lost its mode", self.name)))?.1;
        self.commit(card, screen.crtc, raw, screen.framebuffer())
    }

    /// Shows what was there when the bridge came, or nothing.
    fn show_initial(&self, card: &Card) -> io::Result<()> {
        if let Some(shown) = self.initial.filter(|shown| shown.mode.is_some()) {
            let connectors = [self.connector];
            return card.set_crtc(shown.crtc, shown.framebuffer, shown.position, &connectors, shown.mode);
        }
        let encoder = card.get_connector(self.connector, false)?.current_encoder();
        match encoder.map(|encoder| card.get_encoder(encoder)).transpose()?.and_then(|encoder| encoder.crtc())
        {
            Some(crtc) => card.set_crtc(crtc, None, (0, 0), &[], None),
            None => Ok(()),
        }
    }

    /// Gives the screen back as it was. Returns who waited for a picture.
    pub(super) fn restore(&mut self, card: &Card) -> Vec<Ticket> {
        let waiting = self.on_flip().into_iter();
        let waiting = waiting.chain(self.queue.drain(..).map(|picture| picture.ticket)).collect();
        self.surface = None;
        let Some(crtc) = self.crtc() else { return waiting };
        self.lent = None;
        let back = self.initial.filter(|shown| shown.mode.is_some()).map(|shown| {
            card.set_crtc(shown.crtc, shown.framebuffer, shown.position, &[self.connector], shown.mode)
        });
        // What was there before is gone, or there was nothing.
        if !matches!(back, Some(Ok(()))) {
            let _ = card.set_crtc(crtc, None, (0, 0), &[], None);
        }
        self.screen.take().into_iter().for_each(|screen| screen.free(card));
        self.black.take().into_iter().for_each(|black| black.free(card));
        waiting
    }
}

/// Has a buffer seen from the next picture on. `parts` is what was drawn into it; none if it was all.
fn flip(
    card: &Card,
    (crtc, clips): (crtc::Handle, Option<Clips>),
    framebuffer: framebuffer::Handle,
    parts: Option<&[Rectangle]>,
) -> io::Result<()> {
    let parts = parts.filter(|parts| !parts.is_empty());
    if let (Some(clips), Some(parts)) = (clips, parts) {
        return clips.flip(card, framebuffer, parts);
    }
    card.page_flip(crtc, framebuffer, PageFlipFlags::EVENT, None)?;
    if let (false, Some(parts)) = (card.is_atomic, parts) {
        let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
        let clip = |part: &Rectangle| {
            let (right, below) = (part.x + part.width, part.y + part.height);
            ClipRect::new(side(part.x), side(part.y), side(right), side(below))
        };
        // A driver that copies is told what to copy; others need no telling, and refuse it.
        let _ = card.dirty_framebuffer(framebuffer, &parts.iter().map(clip).collect::<Vec<_>>());
    }
    Ok(())
}

/// A mode by what a user calls it; none for one without a refresh rate.
fn described(mode: &Mode) -> Option<DisplayMode> {
    let (width, height) = mode.size();
    let (mut clock, mut lines) = (u64::from(mode.clock()) * 1_000_000, u64::from(mode.vsync().2));
    if mode.flags().contains(ModeFlags::INTERLACE) {
        clock *= 2;
    }
    if mode.flags().contains(ModeFlags::DBLSCAN) {
        lines *= 2;
    }
    lines *= u64::from(mode.vscan().max(1));
    let pixels = u64::from(mode.hsync().2) * lines;
    let refresh_mhz = (clock + pixels / 2).checked_div(pixels)?;
    let refresh_mhz = u32::try_from(refresh_mhz).ok()?;
    Some(DisplayMode { width: width.into(), height: height.into(), refresh_mhz })
}

/// Diagonal of a panel that is part of the machine, in millimetres.
fn panel_mm(info: &connector::Info) -> Option<u32> {
    use connector::Interface;
    match info.interface() {
        Interface::EmbeddedDisplayPort | Interface::LVDS | Interface::DSI | Interface::DPI => {
            let (width, height) = info.size()?;
            Some((width.checked_pow(2)?.checked_add(height.checked_pow(2)?)?).isqrt())
        }
        _ => None,
    }
}
