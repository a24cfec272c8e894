//! Replaces the generated part of a page. Pure.

pub(super) const BEGIN: &str = "<!-- begin of what make placement writes -->";
pub(super) const END: &str = "<!-- end of what make placement writes -->";

/// `page` with `part` between the two marks.
pub(super) fn replaced(page: &str, part: &str) -> Result<String, String> {
    let (before, rest) = page.split_once(BEGIN).ok_or_else(|| format!("there is no line '{BEGIN}'"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("there is no line '{END}' behind '{BEGIN}'"))?;
    if after.contains(BEGIN) || after.contains(END) {
        return Err(format!("'{BEGIN}' and '{END}' may be there once each"));
    }
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", part.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::{read, table};
    use super::*;
    use std::path::Path;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&page, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(replaced(&new, "new").unwrap(), new, "twice is as once");
    }

    #[test]
    fn a_page_without_marks_or_with_several_is_refused() {
        for page in [String::new(), BEGIN.into(), format!("{END}{BEGIN}"), format!("{BEGIN}{END}{BEGIN}{END}")] {
            assert!(replaced(&page, "new").is_err(), "{page}");
        }
    }

    #[test]
    fn the_guide_holds_the_tables_of_the_results() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let guide = std::fs::read_to_string(root.join("../docs/placement.md")).unwrap();
        let mut report = read(&root.join("results/placement")).unwrap();
        assert!(guide.contains(&table::part(&report)), "run analysis placement --redraw");
        assert_eq!(replaced(&guide, &table::part(&report)).unwrap(), guide);
        let goals = std::mem::take(&mut report.goals);
        report.judge();
        assert_eq!(report.goals, goals);
    }
}
