//! What the environment says. `main` lists the variables.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hyper::http::uri::PathAndQuery;

use crate::answers::Endpoint;

const LONGEST_SERVICE: Duration = Duration::from_secs(60);
const MOST_AT_A_TIME: usize = 10_000;

/// What the server was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// `None` for the host name.
    pub(crate) server_id: Option<String>,
    pub(crate) trial: Trial,
}

/// How the server behaves to try things out; by default it does nothing of the sort.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Trial {
    /// How long `/home` takes.
    pub(crate) service_time: Duration,
    /// How many requests for `/home` are served at a time.
    pub(crate) concurrency: Option<usize>,
    /// Where a request crashes the process.
    pub(crate) crash_path: Option<String>,
}

impl Settings {
    /// The settings that these variables make, or which one can't be used, and what it may be.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let read = Reader(variable);
        let port =
            read.parse("PORT", "a port is a whole number from 0 (any free one) to 65535", |text| text.parse().ok());
        let bind = read.parse("BIND", "an IP address such as 127.0.0.1 or :: is wanted", |text| text.parse().ok());
        let service_time =
            read.parse("SERVICE_TIME", "a time from 0s to 60s with its unit, such as 10ms, is wanted", |text| {
                humantime::parse_duration(text).ok().filter(|time| *time <= LONGEST_SERVICE)
            });
        let concurrency = read.parse("SERVICE_CONCURRENCY", "a whole number from 1 to 10000 is wanted", |text| {
            text.parse().ok().filter(|number| (1..=MOST_AT_A_TIME).contains(number))
        });
        let crash_path = read.parse(
            "CRASH_PATH",
            "a path that begins with / is wanted, such as /crash, but not /home, /heartbeat or /heatbeat",
            |text| Some(text.to_owned()).filter(|text| is_path(text) && Endpoint::of(text).is_none()),
        );
        Ok(Self {
            listen: SocketAddr::from((bind?.unwrap_or(IpAddr::from(Ipv4Addr::UNSPECIFIED)), port?.unwrap_or(5000))),
            server_id: (read.0)("SERVER_ID").filter(|id| !id.is_empty()),
            trial: Trial {
                service_time: service_time?.unwrap_or_default(),
                concurrency: concurrency?,
                crash_path: crash_path?,
            },
        })
    }
}

struct Reader<V>(V);

impl<V: Fn(&str) -> Option<String>> Reader<V> {
    /// The variable's value; `None` if it is not set.
    fn parse<T>(&self, name: &str, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, String> {
        let Some(text) = (self.0)(name) else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| format!("{name} is '{text}': {allowed}"))
    }
}

/// Can this be a request's path? A query or a fragment is no part of one, so nothing would ever match.
fn is_path(text: &str) -> bool {
    let same = |parsed: PathAndQuery| parsed.as_str() == text && parsed.path() == text;
    text.starts_with('/') && text.is_ascii() && PathAndQuery::try_from(text).is_ok_and(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn without_variables_nothing_is_slow_and_nothing_crashes() {
        let listen = "0.0.0.0:5000".parse().unwrap();
        let trial = Trial { service_time: Duration::ZERO, concurrency: None, crash_path: None };
        assert_eq!(read(&[]), Ok(Settings { listen, server_id: None, trial }));
        assert_eq!(read(&[("SERVER_ID", "")]), read(&[]), "an empty name is none");
    }

    #[test]
    fn all_can_be_set() {
        let set = [
            ("PORT", "0"),
            ("BIND", "::1"),
            ("SERVER_ID", "S7"),
            ("SERVICE_TIME", "10ms"),
            ("SERVICE_CONCURRENCY", "8"),
        ];
        let trial = Trial {
            service_time: Duration::from_millis(10),
            concurrency: Some(8),
            crash_path: Some("/crash/me".into()),
        };
        let settings = Settings { listen: "[::1]:0".parse().unwrap(), server_id: Some("S7".into()), trial };
        assert_eq!(read(&[&set[..], &[("CRASH_PATH", "/crash/me")]].concat()), Ok(settings));
    }

    #[test]
    fn limits_are_allowed_and_nothing_beyond() {
        for (name, least, most) in
            [("SERVICE_TIME", "0s", "1min"), ("SERVICE_CONCURRENCY", "1", "10000"), ("PORT", "0", "65535")]
        {
            assert!(read(&[(name, least)]).is_ok() && read(&[(name, most)]).is_ok(), "{name}");
        }
        for (name, values, allowed) in [
            ("PORT", &["http", "-1", "65536", ""][..], "a port is a whole number from 0 (any free one) to 65535"),
            ("BIND", &["here", "127.0.0.1:80"], "an IP address such as 127.0.0.1 or :: is wanted"),
            (
                "SERVICE_TIME",
                &["10", "-1ms", "60s 1ns", "soon", ""],
                "a time from 0s to 60s with its unit, such as 10ms, is wanted",
            ),
            (
                "SERVICE_CONCURRENCY",
                &["0", "10001", "1.5", "-1", "off", ""],
                "a whole number from 1 to 10000 is wanted",
            ),
            (
                "CRASH_PATH",
                &[
                    "crash",
                    "",
                    "/home",
                    "/heartbeat",
                    "/heatbeat",
                    "/crash?now=1",
                    "/crash#now",
                    "/a b",
                    "http://a/crash",
                    "*",
                    "/crâsh",
                ],
                "a path that begins with / is wanted, such as /crash, but not /home, /heartbeat or /heatbeat",
            ),
        ] {
            for value in values {
                assert_eq!(read(&[(name, value)]), Err(format!("{name} is '{value}': {allowed}")));
            }
        }
    }
}
