//! The title of a chart and its legend, in lines of their own above it: they are never over what is drawn.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, FONT, TEXT, TITLE, wide, written};

/// The height of a line, the room for a sign, and the room between two entries and at the sides.
const LINE: i32 = 22;
const SIGN: i32 = 20;
const GAP: i32 = 24;

/// The room above the title.
const TOP: i32 = 6;

/// What stands before a name.
pub(super) enum Sign {
    Square(RGBColor),
    /// A square that is told from the paper by its edge.
    Edged(RGBColor),
    Dot(RGBColor),
    /// An upright stroke.
    Stroke(RGBColor),
    Line,
    /// A level stroke with a colour.
    Stripe(RGBColor),
    Dashes(RGBColor),
}

/// Draws the title and the entries, in as many lines as they take, and returns the room below them.
pub(super) fn head<'a>(area: &Area<'a>, title: &str, entries: &[(&str, Sign)]) -> Result<Area<'a>, Box<dyn Error>> {
    let area = area.margin(TOP, 0, 0, 0).titled(title, (FONT, TITLE))?;
    let (width, _) = area.dim_in_pixel();
    let (mut x, mut line) = (GAP, 0);
    let mut places = Vec::new();
    for (name, _) in entries {
        let entry = SIGN + wide(name, TEXT);
        if x > GAP && x + entry > width as i32 {
            (x, line) = (GAP, line + 1);
        }
        places.push((x, line * LINE + LINE / 2));
        x += entry + GAP;
    }
    let height = if entries.is_empty() { 0 } else { (line + 1) * LINE };
    let (above, below) = area.split_vertically(height);
    for ((name, sign), (x, y)) in entries.iter().zip(places) {
        match sign {
            Sign::Square(colour) => above.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], colour.filled()))?,
            Sign::Edged(colour) => {
                let corners = [(x, y - 6), (x + 12, y + 6)];
                above.draw(&Rectangle::new(corners, colour.filled()))?;
                above.draw(&Rectangle::new(corners, BLACK.mix(0.4)))?;
            }
            Sign::Dot(colour) => above.draw(&Circle::new((x + 6, y), 5, colour.filled()))?,
            Sign::Stroke(colour) => {
                above.draw(&PathElement::new([(x + 6, y - 7), (x + 6, y + 7)], colour.stroke_width(3)))?;
            }
            Sign::Stripe(colour) => above.draw(&PathElement::new([(x - 2, y), (x + 14, y)], colour.stroke_width(3)))?,
            Sign::Dashes(colour) => {
                for from in [x - 2, x + 8] {
                    above.draw(&PathElement::new([(from, y), (from + 6, y)], colour.stroke_width(2)))?;
                }
            }
            Sign::Line => above.draw(&PathElement::new([(x - 2, y), (x + 14, y)], BLACK.stroke_width(2)))?,
        }
        above.draw(&Text::new(*name, (x + SIGN, y), written(TEXT, HPos::Left, VPos::Center)))?;
    }
    Ok(below)
}
