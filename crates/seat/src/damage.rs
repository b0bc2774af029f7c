//! What of a picture differs from what a memory holds already, and is to be drawn.
//!
//! Parts are added up until they are drawn: a memory that is not seen misses what was drawn meanwhile into the one that is.

use keyway_gui::{
    limits::DAMAGE_MAX,
    protocol::{Rectangle, SurfaceConfig},
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Everything, also what the picture does not cover.
    All,
    /// Nothing but these parts.
    Parts(Vec<Rectangle>),
}

impl Damage {
    /// What a compositor named: all, if it named nothing.
    pub(crate) fn named(parts: Vec<Rectangle>) -> Self {
        if parts.is_empty() { Damage::All } else { Damage::Parts(parts) }
    }

    /// Adds other damage. LIMIT: more parts than one presentation can name are everything.
    pub(crate) fn add(&mut self, other: &Damage) {
        match (&mut *self, other) {
            (Damage::Parts(parts), Damage::Parts(more)) if parts.len() + more.len() <= DAMAGE_MAX => {
                parts.extend(more);
            }
            _ => *self = Damage::All,
        }
    }

    /// What of a surface's parts a screen has, from the upper left corner on. `All` is the surface as a whole.
    pub(crate) fn on_screen(&self, config: &SurfaceConfig, (width, height): (u32, u32)) -> Vec<Rectangle> {
        let all = [Rectangle { x: 0, y: 0, width: config.width, height: config.height }];
        let parts = match self {
            Damage::All => &all,
            Damage::Parts(parts) => parts.as_slice(),
        };
        let cut = |part: &Rectangle| {
            let end = |first: u32, count: u32, all: u32| first.saturating_add(count).min(all);
            let right = end(part.x, part.width, config.width.min(width));
            let below = end(part.y, part.height, config.height.min(height));
            let (width, height) = (right.saturating_sub(part.x), below.saturating_sub(part.y));
            Rectangle { width, height, ..*part }
        };
        parts.iter().map(cut).filter(|part| part.width > 0 && part.height > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use keyway_gui::protocol::PixelFormat;

    use super::*;

    fn part(x: u32, y: u32, width: u32, height: u32) -> Rectangle {
        Rectangle { x, y, width, height }
    }

    #[test]
    fn parts_add_up_and_too_many_are_everything() {
        assert_eq!(Damage::named(vec![]), Damage::All);
        let one = Damage::named(vec![part(0, 0, 1, 1)]);
        let mut sum = Damage::Parts(vec![]);
        for count in 1..=DAMAGE_MAX {
            sum.add(&one);
            assert_eq!(sum, Damage::Parts(vec![part(0, 0, 1, 1); count]));
        }
        sum.add(&one);
        assert_eq!(sum, Damage::All);
        sum.add(&one);
        assert_eq!(sum, Damage::All);
        let mut parts = one.clone();
        parts.add(&Damage::All);
        assert_eq!(parts, Damage::All);
    }

    #[test]
    fn parts_end_where_the_surface_or_the_screen_does() {
        let config = SurfaceConfig { width: 10, height: 30, format: PixelFormat::RGB565, stride: None };
        let screen = (20, 20);
        assert_eq!(Damage::All.on_screen(&config, screen), [part(0, 0, 10, 20)]);
        let named = [part(9, 19, 1, 1), part(8, 18, 5, 5), part(0, 20, 10, 10), part(10, 0, 1, 1)];
        let shown = Damage::named(named.to_vec()).on_screen(&config, screen);
        assert_eq!(shown, [part(9, 19, 1, 1), part(8, 18, 2, 2)]);
        let far = Damage::named(vec![part(u32::MAX, 0, u32::MAX, 1)]);
        assert_eq!(far.on_screen(&config, screen), []);
    }
}
