//! Parameters of a question: each known, each once, each in its range.

use super::error::ApiError;

/// The parameters of a URL.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads `query`, in which only `allowed` may stand.
    pub(super) fn read(query: Option<&str>, allowed: &[&str]) -> Result<Self, ApiError> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
        let pairs: Vec<(String, String)> = pairs.collect();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !allowed.contains(&name.as_str()) {
                return Err(ApiError::Bad(format!("unknown parameter '{name}'; allowed: {}", allowed.join(", "))));
            }
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(ApiError::Bad(format!("parameter '{name}' is given twice; each may be given once")));
            }
        }
        Ok(Self { pairs })
    }

    /// Is there none?
    pub(super) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// A parameter as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A parameter as `parse` understands it; what that gives as an error is what is allowed.
    pub(super) fn parse<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let parsed = parse(value).map(Some);
        parsed.map_err(|allowed| ApiError::Bad(format!("{name} is '{value}'; allowed: {allowed}")))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str, range: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        self.parse(name, |text| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }
}
