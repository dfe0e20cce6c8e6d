//! A curve as a picture: workflows a second by how many are in flight, one line a side.

use std::fmt::Write as _;

/// What one side came to, by how many were in flight: the median of the rounds, the least and the most.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(usize, [f64; 3])>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Left, right, top, bottom.
const MARGINS: [f64; 4] = [80.0, 20.0, 48.0, 56.0];
const COLOURS: [&str; 5] = ["#777777", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce"];
const LINES_ACROSS: u32 = 5;

/// The picture as SVG. Both axes begin where they should: the rate at 0, the number in flight at its least, in powers of two.
pub(crate) fn draw(title: &str, curves: &[Curve]) -> String {
    let [left, right, top, bottom] = MARGINS;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let highest = points().map(|(_, [_, _, most])| *most).fold(1.0, f64::max);
    let highest = nice(highest / f64::from(LINES_ACROSS)) * f64::from(LINES_ACROSS);
    let loads: std::collections::BTreeSet<usize> = points().map(|(load, _)| *load).collect();
    let power = |load: usize| (load as f64).log2();
    let (least, most) = (
        loads.first().map_or(0.0, |load| power(*load)),
        loads.last().map_or(1.0, |load| power(*load)),
    );
    let x = |load: usize| left + (power(load) - least) / (most - least).max(1.0) * (WIDTH - left - right);
    let y = |rate: f64| HEIGHT - bottom - rate / highest * (HEIGHT - top - bottom);

    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{left}" y="20" font-weight="bold">{title}</text>
"##
    );
    for line in 0..=LINES_ACROSS {
        let rate = highest / f64::from(LINES_ACROSS) * f64::from(line);
        let _ = writeln!(
            svg,
            r##"<path d="M{left} {at:.1}H{end}" stroke="#e5e5e5"/><text x="{label}" y="{text:.1}" text-anchor="end">{rate}</text>"##,
            at = y(rate),
            end = WIDTH - right,
            label = left - 8.0,
            text = y(rate) + 4.0,
        );
    }
    for load in loads {
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{load}</text>"#,
            x(load),
            HEIGHT - bottom + 20.0
        );
    }
    let _ = writeln!(
        svg,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">workflows in flight</text><text x="{left}" y="40">workflows a second</text>"#,
        (left + WIDTH - right) / 2.0,
        HEIGHT - 12.0
    );
    for (place, (curve, colour)) in curves.iter().zip(COLOURS).enumerate() {
        let path: Vec<String> = curve
            .points
            .iter()
            .map(|(load, [median, ..])| format!("{:.1} {:.1}", x(*load), y(*median)))
            .collect();
        let _ = writeln!(
            svg,
            r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join("L")
        );
        for (load, [median, least, most]) in &curve.points {
            let (x, median, least, most) = (x(*load), y(*median), y(*least), y(*most));
            let _ = writeln!(
                svg,
                r#"<path d="M{x:.1} {least:.1}V{most:.1}" stroke="{colour}"/><circle cx="{x:.1}" cy="{median:.1}" r="3" fill="{colour}"/>"#
            );
        }
        let at = top + 18.0 * place as f64;
        let _ = writeln!(
            svg,
            r#"<circle cx="{}" cy="{}" r="4" fill="{colour}"/><text x="{}" y="{}">{}</text>"#,
            left + 16.0,
            at - 4.0,
            left + 26.0,
            at,
            curve.name
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The next of 1, 2, 2.5 and 5 times a power of ten.
fn nice(number: f64) -> f64 {
    let power = 10f64.powf(number.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= number)
        .unwrap_or(number)
}
