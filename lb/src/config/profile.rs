//! Profiles: values that suit an environment, for whoever says nothing else.
//!
//! These are built in. A file may say more for them, and have others of its own.

/// A built-in profile. What it sets counts as a default: nobody has given it.
#[derive(Debug)]
pub struct Profile {
    /// What `profile` calls it.
    pub name: &'static str,
    /// Settings and their values.
    pub values: &'static [(&'static str, &'static str)],
}

/// All built-in profiles.
pub const PROFILES: &[Profile] = &[
    // Many clients, nobody who watches: logs for programs, a replica in reserve, no client that takes it all.
    Profile {
        name: "production",
        values: &[
            ("spares", "1"),
            ("outliers", "on"),
            ("max_client_connections", "1000"),
            ("max_in_flight", "10000"),
            ("log_format", "json"),
        ],
    },
    // One person who watches, and restarts often: says more, waits less. A breakpoint is no failure at once.
    Profile {
        name: "development",
        values: &[
            ("drain_timeout", "1s"),
            ("stop_grace", "1s"),
            ("heartbeat_interval", "1s"),
            ("log", "info,lb=debug"),
        ],
    },
    // A small machine: one thread, few connections, nothing in reserve.
    Profile {
        name: "slim",
        values: &[("workers", "1"), ("spares", "0"), ("max_connections", "1024"), ("log", "warn")],
    },
];

/// The built-in profile of this name.
pub(super) fn find(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings;

    #[test]
    fn they_set_known_settings_once_in_the_order_of_help() {
        for Profile { name, values } in PROFILES {
            let places: Vec<_> = values
                .iter()
                .map(|(key, _)| settings::SETTINGS.iter().position(|setting| setting.key == *key))
                .collect();
            assert!(places.iter().all(Option::is_some), "{name}");
            assert!(places.is_sorted_by(|a, b| a < b), "{name}");
        }
    }
}
