//! Rings, unrolled: what is in which slot.

use std::collections::BTreeSet;

use plotters::prelude::*;

use super::axis::Scale;
use super::legend::{Sign, head};
use super::rows::{GAP, MARGIN, left, rows};
use super::{Area, Drawn};

/// Named rings of equally many slots.
pub(crate) struct Rings<'a> {
    pub(crate) title: &'a str,
    /// What the axis shows.
    pub(crate) x: &'a str,
    pub(crate) slots: usize,
    /// Every so many slots there is a label.
    pub(crate) every: usize,
    /// Names and colours of what is in slots.
    pub(crate) series: Vec<(String, RGBColor)>,
    /// What the slots are that are grey.
    pub(crate) reached: &'a str,
    /// From top to bottom.
    pub(crate) rings: Vec<Ring>,
}

/// A ring: its name, what is in its slots (a slot, the number of a series), and the slots that are grey.
pub(crate) struct Ring {
    pub(crate) name: String,
    pub(crate) marks: Vec<(usize, usize)>,
    pub(crate) reached: BTreeSet<usize>,
}

/// Darker than the grey among the colours.
const GREY: RGBColor = RGBColor(0x66, 0x66, 0x66);
/// Where marks, the ring itself and grey slots are, as parts of a row.
const MARKS: (f64, f64) = (0.1, 0.56);
const RING: f64 = 0.6;
const REACHED: (f64, f64) = (0.64, 0.82);
/// Of a mark: about a slot of 512, so that those of slots beside each other show.
const WIDTH: u32 = 2;

/// Rings with marks above and grey slots below; the legend is above.
pub(crate) fn rings(area: &Area<'_>, chart: &Rings<'_>) -> Drawn {
    let mut entries: Vec<(&str, Sign)> =
        chart.series.iter().map(|(name, colour)| (name.as_str(), Sign::Stroke(*colour))).collect();
    entries.push((chart.reached, Sign::Square(GREY)));
    let area = head(area, chart.title, &entries)?;
    let slots = chart.slots as f64;
    let ticks = (0..=chart.slots).step_by(chart.every.max(1)).map(|slot| slot as f64).collect();
    let x = Scale { name: chart.x, from: 0.0, to: slots, ticks, ..Scale::default() };
    let names: Vec<&str> = chart.rings.iter().map(|ring| ring.name.as_str()).collect();
    let mut context = rows(&area, &x, &names, (left(names.iter().copied()), GAP, MARGIN), false)?;
    for (ring, top) in chart.rings.iter().zip(0..) {
        let at = |slot: f64, part: f64| (slot, f64::from(top) + part);
        context.draw_series([PathElement::new([at(0.0, RING), at(slots, RING)], BLACK.stroke_width(1))])?;
        for (from, to) in stretches(&ring.reached) {
            let corners = [at(from as f64, REACHED.0), at(to as f64, REACHED.1)];
            context.draw_series([Rectangle::new(corners, GREY.filled())])?;
        }
        for (slot, series) in &ring.marks {
            let (Some((_, colour)), middle) = (chart.series.get(*series), *slot as f64 + 0.5) else { continue };
            let ends = [at(middle, MARKS.0), at(middle, MARKS.1)];
            context.draw_series([PathElement::new(ends, colour.stroke_width(WIDTH))])?;
        }
    }
    Ok(())
}

/// From which slot to before which there is no gap.
fn stretches(slots: &BTreeSet<usize>) -> Vec<(usize, usize)> {
    let mut stretches: Vec<(usize, usize)> = Vec::new();
    for slot in slots {
        match stretches.last_mut() {
            Some((_, end)) if end == slot => *end += 1,
            _ => stretches.push((*slot, slot + 1)),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::super::colour;
    use super::super::tests::{attribute, drawn, elements, words};
    use super::*;

    fn chart() -> Rings<'static> {
        let ring = |name: &str, marks, reached: &[usize]| Ring {
            name: name.into(),
            marks,
            reached: reached.iter().copied().collect(),
        };
        Rings {
            title: "Rings",
            x: "slot of 512",
            slots: 512,
            every: 64,
            series: vec![("S1".into(), colour(0)), ("S2".into(), colour(1))],
            reached: "reached by requests",
            rings: vec![
                ring("upper", vec![(0, 0), (256, 1), (511, 0)], &[64, 65, 66, 256]),
                ring("lower", vec![(128, 1)], &[0, 511]),
            ],
        }
    }

    #[test]
    fn rings_have_every_slot_mark_name_and_tick() {
        let svg = drawn((830, 260), |area| rings(area, &chart()));
        let words = words(&svg);
        for word in
            ["Rings", "slot of 512", "S1", "S2", "reached by requests", "upper", "lower", "0", "64", "448", "512"]
        {
            assert_eq!(words.iter().filter(|(text, _)| *text == word).count(), 1, "{word}");
        }
        // Slots beside each other are one; the legend has one as well.
        let strokes =
            |at: usize| svg.matches(&format!("stroke=\"{}\" stroke-width=\"2\"", ["#4477AA", "#EE6677"][at])).count();
        assert_eq!([strokes(0), strokes(1)], [2, 2]);
        assert_eq!(elements(&svg, "rect").iter().filter(|one| one.contains("#666666")).count(), 2 + 2 + 1);
    }

    #[test]
    fn a_slot_is_at_its_place_between_the_ticks() {
        let svg = drawn((830, 260), |area| rings(area, &chart()));
        let tick = |word: &str| attribute(words(&svg).into_iter().find(|(text, _)| *text == word).unwrap().1, "x");
        let slots: Vec<&str> =
            elements(&svg, "rect").into_iter().filter(|one| one.contains("#666666")).skip(1).collect();
        let (first, last) = (attribute(slots[0], "x"), attribute(slots[3], "x") + attribute(slots[3], "width"));
        assert!((first - tick("64")).abs() <= 1.0, "{first}");
        let three = 3.0 * (tick("512") - tick("0")) / 512.0;
        assert!((attribute(slots[0], "width") - three).abs() <= 1.0, "{}", slots[0]);
        assert!((last - tick("512")).abs() <= 1.0, "{last}");
        let middle =
            svg.split("stroke=\"#EE6677\" stroke-width=\"2\" points=\"").nth(1).unwrap().split(',').next().unwrap();
        assert!((middle.parse::<f64>().unwrap() - tick("256")).abs() <= 2.0, "{middle}");
        for (slots, height) in [(&slots[..2], "upper"), (&slots[2..], "lower")] {
            let name = attribute(words(&svg).into_iter().find(|(text, _)| *text == height).unwrap().1, "y");
            assert!(
                slots.iter().all(|slot| attribute(slot, "y") > name && attribute(slot, "y") < name + 40.0),
                "{height}"
            );
        }
    }

    #[test]
    fn slots_beside_each_other_are_one_stretch() {
        assert_eq!(stretches(&[1, 2, 3, 7, 9, 10].into()), [(1, 4), (7, 8), (9, 11)]);
    }
}
