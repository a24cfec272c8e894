//! Pins: the word by which a client's cookie names a replica without saying which. Pure.
//!
//! A pin is the first 128 bits of HMAC-SHA256 (RFC 2104) over what identifies a replica. Nothing about the fleet can be
//! read from it, and who doesn't know the key can't make one; so there is no table of sessions to keep, and a balancer with
//! the same key, started anew or beside this one, knows the same pins. How cookies carry them is the proxy's business.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::replica::Hostname;

/// Stands in front of what is authenticated. To be changed with it, so that old cookies are unknown, not misread.
const VERSION: &str = "ringkeeper pin 1";
/// The key where none is needed.
const PUBLIC: &[u8] = b"ringkeeper public key of pins";
/// What SHA-256 takes at once, and with it the length of HMAC's keys.
const BLOCK: usize = 64;

/// Computes the pins of a fleet.
#[derive(Clone)]
pub struct PinKey {
    mac: Hmac<Sha256>,
    fleet: String,
}

impl PinKey {
    /// By a secret of 1 byte or more. `fleet` tells fleets apart that could have replicas of one name; may be empty.
    pub fn secret(secret: &[u8], fleet: &str) -> Self {
        let mut key = [0; BLOCK];
        if let Some(start) = key.get_mut(..secret.len()) {
            start.copy_from_slice(secret);
        } else {
            // RFC 2104, section 2: longer keys are hashed first.
            key.iter_mut().zip(Sha256::digest(secret)).for_each(|(to, from)| *to = from);
        }
        Self { mac: Hmac::new(&key.into()), fleet: fleet.to_owned() }
    }

    /// For replicas whose names in their runtime are secrets themselves, as container IDs are: 256 random bits.
    pub fn public(fleet: &str) -> Self {
        Self::secret(PUBLIC, fleet)
    }

    /// The pin of a replica, by its host name and its runtime's name for it. Never 0, which stands for none.
    pub fn pin(&self, hostname: &Hostname, runtime_id: &str) -> u128 {
        let mut mac = self.mac.clone();
        for part in [VERSION, &self.fleet, hostname.as_str(), runtime_id] {
            // With its length in front, no part can be taken for the end of the one before.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let tag = mac.finalize().into_bytes();
        tag.iter().take(16).fold(0, |pin, byte| pin << 8 | u128::from(*byte)).max(1)
    }
}

/// The pin that these 32 hexadecimal digits are, in lower case as they are given out; 0 for anything else.
pub fn parse(text: &[u8]) -> u128 {
    if text.len() != 32 {
        return 0;
    }
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    text.iter().try_fold(0, |pin, byte| Some(pin << 4 | u128::from(digit(byte)?))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(key: &PinKey, hostname: &str, id: &str) -> u128 {
        key.pin(&Hostname::new(hostname).unwrap(), id)
    }

    const VECTORS: &[(&str, &str, u128)] = &[
        ("a secret of some length", "", 0x9b7c_9590_22dc_99af_8fd0_4d48_e9b4_77ab),
        ("a secret of some length", "ringkeeper", 0x9a4a_155c_22c6_b185_a5b7_66fb_47f3_b499),
        ("long", "ringkeeper", 0x199c_8c55_0e54_37da_9a70_09f5_eedd_31f7),
    ];

    /// As Python's `hmac` and `hashlib` give them.
    #[test]
    fn a_pin_is_the_start_of_an_hmac() {
        let long = "k".repeat(100);
        for (secret, fleet, expected) in VECTORS {
            let secret = if *secret == "long" { &long } else { *secret };
            assert_eq!(pin(&PinKey::secret(secret.as_bytes(), fleet), "S1", "10.0.0.1:80"), *expected, "{secret}");
        }
    }

    #[test]
    fn whatever_differs_makes_another_pin() {
        let key = PinKey::secret(b"a secret of some length", "one");
        let mut pins = vec![
            pin(&key, "S1", "10.0.0.1:80"),
            pin(&key, "S2", "10.0.0.1:80"),
            pin(&key, "S1", "10.0.0.2:80"),
            pin(&key, "S11", "0.0.0.1:80"),
            pin(&PinKey::secret(b"a secret of some length", "oneS"), "1x", "10.0.0.1:80"),
            pin(&PinKey::secret(b"a secret of some length", ""), "S1", "10.0.0.1:80"),
            pin(&PinKey::secret(b"another secret", "one"), "S1", "10.0.0.1:80"),
            pin(&PinKey::public("one"), "S1", "10.0.0.1:80"),
        ];
        pins.sort_unstable();
        pins.dedup();
        assert_eq!(pins.len(), 8);
        assert_eq!(pin(&key, "S1", "10.0.0.1:80"), pin(&key.clone(), "S1", "10.0.0.1:80"));
    }

    #[test]
    fn only_what_was_given_out_is_read() {
        for pin in [1, 0x1f, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            assert_eq!(parse(format!("{pin:032x}").as_bytes()), pin);
        }
        for wrong in [
            "",
            "0",
            "S1",
            "00000000000000000000000000000000",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdef0",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef0123456789abcdeg",
            " 123456789abcdef0123456789abcdef",
            "+123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(parse(wrong.as_bytes()), 0, "{wrong:?}");
        }
    }
}
