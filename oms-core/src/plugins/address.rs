//! Which addresses a plugin may reach: those of the public internet, unless the account grants more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A name that stands only for addresses that are not public.
#[derive(Debug, thiserror::Error)]
#[error("{0} has no public address: the account must grant it as a private host")]
pub(super) struct NotPublic(String);

/// Resolves names to public addresses alone. As the connection is made to what this answers, the address that was
/// checked is the one that is used, whatever the name stands for a moment later.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let asked = name.clone();
            let found = tokio::task::spawn_blocking(move || (asked.as_str(), 0).to_socket_addrs()).await??;
            Ok(Box::new(public_of(name, found)?.into_iter()) as Addrs)
        })
    }
}

/// What of one answer may be connected to. The name is not asked again for this connection.
fn public_of(name: String, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, NotPublic> {
    let public: Vec<_> = found.filter(|address| is_public(address.ip())).collect();
    match public.is_empty() {
        true => Err(NotPublic(name)),
        false => Ok(public),
    }
}

/// Whether an address belongs to the public internet: neither private, loopback, link-local, shared, reserved nor
/// multicast, nor an IPv6 address that stands for such an IPv4 address.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18..=19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    match s {
        // Mapped and translated (NAT64) IPv4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(v4(high, low))
        }
        // 6to4.
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Protocol assignments with Teredo; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Everything else that is public today lies in 2000::/3.
        _ => (0x2000..=0x3fff).contains(&s[0]),
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses() {
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn all_others() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    /// A name server that answers with a public address first and with this machine's later gains nothing: each
    /// connection is made to what was checked for it, and each later answer is checked anew.
    #[test]
    fn a_name_that_changes_its_mind() {
        let mut answers = [
            vec!["93.184.216.34:0"],
            vec!["127.0.0.1:0"],
            vec!["10.0.0.1:0", "93.184.216.34:0", "[::1]:0"],
        ]
        .into_iter()
        .map(|answer| answer.into_iter().map(|text| text.parse().unwrap()));
        let mut ask = || {
            let answer: Vec<SocketAddr> = answers.next().unwrap().collect();
            public_of("rebind.test".into(), answer.into_iter())
        };
        let public: SocketAddr = "93.184.216.34:0".parse().unwrap();
        assert_eq!(ask().unwrap(), [public]);
        assert_eq!(ask().unwrap_err().0, "rebind.test");
        assert_eq!(ask().unwrap(), [public], "what is private among them is left out");
    }

    #[tokio::test]
    async fn a_name_for_this_machine_is_not_resolved() {
        let refused = PublicOnly.resolve("localhost".parse().unwrap()).await;
        let error = refused.err().unwrap();
        assert!(error.is::<NotPublic>(), "{error}");
    }
}
