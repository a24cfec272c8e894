//! Charts as SVG: bars, lines over a growing quantity, rows of dots. Knows nothing of what is drawn.

mod axis;
mod bars;
mod course;
mod dots;
mod grouped;
mod legend;
mod lines;
mod rings;
mod rows;
mod strips;
mod timeline;

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) use axis::Scale;
pub(crate) use axis::steps;
pub(crate) use bars::{Bar, bars};
pub(crate) use course::{Course, Layer, Shape, course};
pub(crate) use dots::{Dots, dots};
pub(crate) use grouped::{Grouped, Height, grouped};
pub(crate) use lines::{Axes, Line, lines};
pub(crate) use rings::{Ring, Rings, rings};
pub(crate) use strips::{Strips, strips};
pub(crate) use timeline::{Timeline, Track, scatter, timeline};

/// A drawing area that may fail.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Drawn = Result<(), Box<dyn Error>>;

/// Told apart also by those who don't see red and green (P. Tol, "Colour Schemes", 2021: bright).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x44, 0x77, 0xAA),
    RGBColor(0xEE, 0x66, 0x77),
    RGBColor(0x22, 0x88, 0x33),
    RGBColor(0xBB, 0xBB, 0xBB),
    RGBColor(0xCC, 0xBB, 0x44),
    RGBColor(0xAA, 0x33, 0x77),
    RGBColor(0x66, 0xCC, 0xEE),
];
/// Of what is shaded: lines of all colours show on it.
const SHADE: RGBColor = RGBColor(0xEE, 0xEE, 0xEE);
const FONT: &str = "sans-serif";
const CAPTION: u32 = 17;
const LABEL: u32 = 13;
/// The title and the words of a chart that is alone in its row of a sheet.
const TITLE: u32 = 19;
const TEXT: u32 = 15;
/// Room above the highest value, for its number.
const HEADROOM: f64 = 1.18;

/// The colour of the series with this number.
pub(crate) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// How words are written, and where they are from their place.
fn written(size: u32, across: HPos, down: VPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&BLACK).pos(Pos::new(across, down))
}

/// The most pixels that a text of this size may take: the font is the reader's, so nobody knows exactly.
fn wide(text: &str, size: u32) -> i32 {
    (text.chars().count() as f64 * f64::from(size) * 0.5).ceil() as i32
}

/// An empty sheet of `columns` × `rows` panels, each with this size.
pub(crate) fn sheet(file: &Path, (columns, rows): (usize, usize), (width, height): (u32, u32)) -> Sheet<'_> {
    let root = SVGBackend::new(file, (width * columns as u32, height * rows as u32)).into_drawing_area();
    Sheet { root, panels: (rows, columns) }
}

pub(crate) struct Sheet<'a> {
    root: Area<'a>,
    panels: (usize, usize),
}

impl<'a> Sheet<'a> {
    /// White paper, cut into panels.
    pub(crate) fn panels(&self) -> Result<Vec<Area<'a>>, Box<dyn Error>> {
        self.root.fill(&WHITE)?;
        Ok(self.root.split_evenly(self.panels))
    }

    /// Writes the file; a failed write shows here.
    pub(crate) fn finish(&self) -> Drawn {
        Ok(self.root.present()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a file with this one chart.
    pub(super) fn drawn(size: (u32, u32), draw: impl Fn(&Area<'_>) -> Drawn) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("chart.svg");
        let sheet = sheet(&file, (1, 1), size);
        draw(&sheet.panels().unwrap()[0]).unwrap();
        sheet.finish().unwrap();
        std::fs::read_to_string(&file).unwrap()
    }

    /// Every such element: its attributes, and its text.
    pub(super) fn elements<'t>(svg: &'t str, element: &str) -> Vec<&'t str> {
        svg.split('<').filter(|part| part.strip_prefix(element).is_some_and(|rest| rest.starts_with(' '))).collect()
    }

    /// The number in this attribute of an element.
    pub(super) fn attribute(element: &str, name: &str) -> f64 {
        let (_, rest) = element.split_once(&format!(" {name}=\"")).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    }

    /// The words of a chart, each with its element.
    pub(super) fn words(svg: &str) -> Vec<(&str, &str)> {
        elements(svg, "text").into_iter().map(|text| (text.split('>').nth(1).unwrap().trim(), text)).collect()
    }

    #[test]
    fn a_sheet_holds_every_name_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bars.svg");
        let sheet = sheet(&file, (3, 1), (400, 300));
        let panels = sheet.panels().unwrap();
        let bar = |name: &str, median| Bar {
            name: name.into(),
            colour: colour(0),
            median,
            min: median - 1.0,
            max: median + 1.0,
        };
        bars(&panels[0], "Title", "µs", &[bar("one", 3.0), bar("two", 5.0)], |value| format!("{value:.1}")).unwrap();
        let line = Line {
            name: "a line".into(),
            colour: colour(1),
            points: vec![(3.0, 1.0, 0.5, 2.0), (50.0, 9.0, 8.0, 10.0)],
        };
        let axes = Axes {
            title: "Lines",
            x: "members",
            y: "ns",
            log_x: true,
            log_y: true,
            ticks: vec![3.0, 50.0],
            tick: Some(|x| format!("x{x:.0}")),
            band: Some((5.0, 20.0)),
            nested: true,
            ..Axes::default()
        };
        let rows = Dots {
            title: "Dots",
            x: "share",
            from: 0.0,
            to: 3.0,
            ticks: vec![0.0, 2.0],
            mark: Some(1.0),
            series: vec![("series a".into(), colour(0)), ("series b".into(), colour(1))],
            rows: vec![("upper".into(), vec![Some(1.0), None]), ("lower".into(), vec![Some(2.0), Some(2.5)])],
        };
        dots(&panels[2], &rows).unwrap();
        let under = Line { name: "under it".into(), colour: colour(2), points: line.points.clone() };
        lines(&panels[1], &axes, &[under, line]).unwrap();
        sheet.finish().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        // Three values and two names in the legend; two points each of two lines.
        assert_eq!(text.matches("<circle").count(), 3 + 2 + 4);
        let height = |name: &str| text.find(&format!("\n{name}\n")).unwrap();
        assert!(height("series a") < height("series b"));
        for word in [
            "Dots",
            "upper",
            "lower",
            "share",
            "Title",
            "one",
            "two",
            "3.0",
            "5.0",
            "µs",
            "members",
            "Lines",
            "\nx50\n",
            "#EEEEEE",
            "under it",
            "stroke-width=\"4\"",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
