//! The outcome as an SVG picture: one panel for each scenario, one line for each system, on a logarithmic scale.
//!
//! A dot is the median; where there are percentiles, a bar reaches from it to p99.9 with a tick at p99.

use std::fmt::Write;

use crate::{
    rounds::{Outcome, Row},
    scenario::{Metric, Scenario},
};

const WIDTH: f64 = 820.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 700.0;
const TITLE_HEIGHT: f64 = 34.0;
const ROW_HEIGHT: f64 = 26.0;
const AXIS_HEIGHT: f64 = 40.0;

/// The whole picture; `caption` says which machine.
pub(crate) fn draw(outcome: &Outcome, caption: &str) -> String {
    let mut panels = String::new();
    let mut top = 40.0;
    for scenario in outcome.scenarios() {
        let rows: Vec<&Row> = outcome.rows_of(scenario).collect();
        let height = draw_panel(&mut panels, top, scenario, &rows);
        top += height;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" fill=\"#666\" font-size=\"11\">{}</text>\n{panels}</svg>\n",
        escape(caption)
    )
}

/// Answers its height.
fn draw_panel(svg: &mut String, top: f64, scenario: Scenario, rows: &[&Row]) -> f64 {
    let scale = Scale::over(rows.iter().flat_map(|row| drawn(row).map(|(_, value)| value)));
    let bottom = top + TITLE_HEIGHT + rows.len() as f64 * ROW_HEIGHT;
    let better = if scenario.metrics()[0].is_more_better() { "more is better" } else { "less is better" };
    text(svg, 10.0, top + 18.0, "start", &format!("{} ({better})", scenario.name()));
    for value in scale.decades() {
        let x = scale.x(value);
        line(svg, [x, top + TITLE_HEIGHT - 6.0], [x, bottom], "#ddd", 1.0);
        text(svg, x, bottom + 16.0, "middle", &scenario.metrics()[0].show(value));
    }
    for (index, row) in (0_u16..).zip(rows) {
        draw_row(svg, top + TITLE_HEIGHT + (f64::from(index) + 0.5) * ROW_HEIGHT, &scale, row);
    }
    bottom + AXIS_HEIGHT - top
}

fn draw_row(svg: &mut String, y: f64, scale: &Scale, row: &Row) {
    let colour = if row.system == row.scenario.limit() { "#888" } else { "#2060c0" };
    let x = |metric| drawn(row).find(|&(drawn, _)| drawn == metric).map(|(_, value)| scale.x(value));
    text(svg, LEFT - 10.0, y + 4.0, "end", row.system);
    if let (Some(p50), Some(p99), Some(p999)) = (x(Metric::P50), x(Metric::P99), x(Metric::P999)) {
        line(svg, [p50, y], [p999, y], colour, 3.0);
        line(svg, [p99, y - 6.0], [p99, y + 6.0], colour, 2.0);
    }
    if let Some(value) = row.main_value() {
        let x = scale.x(value);
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/>");
        text(svg, WIDTH - 10.0, y + 4.0, "end", &row.scenario.metrics()[0].show(value));
    }
}

/// What of a row is on the scale: not how often it slept.
fn drawn(row: &Row) -> impl Iterator<Item = (Metric, f64)> {
    let metrics = row.scenario.metrics().iter().filter(|&&metric| metric != Metric::Sleeps);
    metrics.filter_map(|&metric| Some((metric, row.value(metric)?)))
}

/// Whole decades, from the one that the least value lies in to the one above the greatest.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (least, greatest) = values.fold((f64::MAX, 1.0_f64), |(least, greatest), value| {
            (least.min(value.max(1.0)), greatest.max(value))
        });
        let low = least.log10().floor();
        Self { low, high: greatest.log10().ceil().max(low + 1.0) }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value.max(1.0).log10() - self.low) / (self.high - self.low) * (RIGHT - LEFT)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|exponent| 10_f64.powi(exponent))
    }
}

fn line(svg: &mut String, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], colour: &str, width: f64) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(words));
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
