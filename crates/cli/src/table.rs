//! Tables and JSON for people and programs who look.

use comfy_table::{Cell, CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use crate::Stop;

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A plain table: headings in capitals, columns apart by blanks, no lines.
pub(crate) fn render(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let cell = |text: &str, align| {
        let alignment = match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        };
        Cell::new(text).set_alignment(alignment)
    };
    table.set_header(columns.iter().map(|(name, align)| cell(name, *align)));
    for row in rows {
        table.add_row(row.iter().zip(columns).map(|(text, (_, align))| cell(text, *align)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Prints a value as JSON, indented.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Stop> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A number of bytes, for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (0..UNITS.len() - 1).take_while(|step| count >> (10 * (step + 1)) > 0).count();
    if step == 0 {
        return format!("{count} B");
    }
    let whole = count as f64 / (1_u64 << (10 * step)) as f64;
    format!("{whole:.1} {}", UNITS[step])
}

/// A time, for people.
pub(crate) fn nanoseconds(count: u64) -> String {
    let count = count as f64;
    match count {
        count if count < 1e3 => format!("{count:.0} ns"),
        count if count < 1e6 => format!("{:.1} µs", count / 1e3),
        count if count < 1e9 => format!("{:.1} ms", count / 1e6),
        count => format!("{:.1} s", count / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(1 << 30)],
            ["0 B", "1023 B", "1.0 KiB", "1.0 GiB"]
        );
        let times = [nanoseconds(999), nanoseconds(1500), nanoseconds(2_000_000), nanoseconds(3_000_000_000)];
        assert_eq!(times, ["999 ns", "1.5 µs", "2.0 ms", "3.0 s"]);
    }

    #[test]
    fn a_table_has_no_lines_and_no_blanks_at_the_end() {
        let text = render(&[("PID", Align::Right), ("WHAT", Align::Left)], &[vec!["7".into(), "x".into()]]);
        assert_eq!(text, "PID  WHAT\n  7  x");
    }
}
