//! The header that tells a server who its client is: PROXY protocol, version 2, for TCP (HAProxy's
//! `doc/proxy-protocol.txt`, section 2.2). Pure.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
/// Address family and transport: TCP over IPv4, over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header of a connection from `client`, which was made to `local`.
pub(super) fn header(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(VERSION_AND_COMMAND);
    match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.push(TCP4);
            header.extend(12_u16.to_be_bytes());
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (from, to) => {
            let long = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            header.push(TCP6);
            header.extend(36_u16.to_be_bytes());
            header.extend(long(from));
            header.extend(long(to));
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(local.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_text_says() {
        let header4 = header("192.0.2.1:1025".parse().unwrap(), "198.51.100.2:443".parse().unwrap());
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x01\x01\xbb";
        assert_eq!(header4, expected);
        assert_eq!(
            header("[::ffff:192.0.2.1]:1025".parse().unwrap(), "[::ffff:198.51.100.2]:443".parse().unwrap()),
            expected
        );
        let header6 = header("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
        assert_eq!((header6.len(), &header6[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(
            (&header6[16..18], header6[31], header6[47], &header6[48..]),
            (&[0x20, 0x01][..], 1, 2, &[0, 1, 0, 2][..])
        );
    }
}
