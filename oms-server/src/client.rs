//! Which address a request counts for: the one it came from, unless a proxy that is trusted says for whom it speaks.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Proxies that a request may have passed; a longer way is none that anybody set up.
const LONGEST_WAY: usize = 16;

/// Proxies whose `X-Forwarded-For` is believed. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    networks: Vec<Network>,
    warned: AtomicBool,
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Proxies {
    /// The client behind `peer`. `forwarded` holds the header's values in the order in which they came.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl Iterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        let values: Vec<&str> = forwarded.collect();
        if !self.trusts(client) {
            if !values.is_empty() {
                self.warn(client);
            }
            return client;
        }
        // From the right: each trusted proxy has added whom it heard from. What stands left of the first stranger was
        // written by that stranger.
        let way = values.iter().rev().flat_map(|value| value.rsplit(','));
        for hop in way.take(LONGEST_WAY) {
            let Some(address) = address(hop.trim()) else {
                break;
            };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.networks.iter().any(|network| network.holds(address))
    }

    /// Once: behind a proxy that is not named, all clients share one limit, and nobody would guess why.
    fn warn(&self, peer: IpAddr) {
        if !self.0.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "a request came with X-Forwarded-For from an address that OMS_TRUSTED_PROXIES does not name: it \
                 counts for that address, as all its others"
            );
        }
    }
}

/// Such as `10.0.0.0/8, 192.0.2.7, ::1`.
impl FromStr for Proxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let networks = parts.map(str::parse).collect::<Result<_, String>>()?;
        Ok(Self(Arc::new(Known {
            networks,
            warned: AtomicBool::new(false),
        })))
    }
}

impl Network {
    fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                first_bits(self.address, self.bits) == first_bits(address, self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is neither an address nor a network such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

/// Whose limit an address shares: one household or server has a whole /64 of IPv6 and could change within it at will.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() & mask(64, 128)).to_be_bytes()),
    }
}

fn first_bits(address: IpAddr, bits: u32) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) & mask(bits, 32),
        IpAddr::V6(v6) => v6.to_bits() & mask(bits, 128),
    }
}

/// The first `bits` of a number of `width` bits.
fn mask(bits: u32, width: u32) -> u128 {
    let ones = u128::MAX >> (128 - width);
    ones & ones.checked_shl(width - bits).unwrap_or(0)
}

/// Proxies write it with a port and with brackets, too.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let parsed = bare.parse::<IpAddr>().ok();
    let parsed = parsed.or_else(|| Some(text.parse::<std::net::SocketAddr>().ok()?.ip()));
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let proxies: Proxies = trusted.parse().unwrap();
        let forwarded = forwarded.iter().copied();
        proxies.client(peer.parse().unwrap(), forwarded).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client("", "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.0/8", "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(
            client("10.0.0.0/8", "10.1.2.3", &["198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(
            client("10.0.0.0/8", "::ffff:10.1.2.3", &["2001:db8::1"]),
            "2001:db8::1"
        );
    }

    #[test]
    fn what_a_client_made_up_stands_left_of_its_own_address() {
        let made_up = ["203.0.113.5, 198.51.100.7", "10.0.0.2"];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &made_up), "198.51.100.7");
        assert_eq!(
            client("10.0.0.0/8", "10.0.0.1", &["198.51.100.7, nonsense"]),
            "10.0.0.1"
        );
        assert_eq!(
            client("10.0.0.0/8", "10.0.0.1", &["10.0.0.3, 10.0.0.2"]),
            "10.0.0.3"
        );
        let long = "10.0.0.2,".repeat(100_000);
        assert_eq!(
            client("10.0.0.0/8", "10.0.0.1", &[&format!("192.0.2.1,{long}10.0.0.9")]),
            "10.0.0.2"
        );
    }

    #[test]
    fn ports_and_brackets_are_read() {
        for (text, wanted) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            assert_eq!(client("::1", "::1", &[text]), wanted);
        }
    }

    #[test]
    fn networks_are_checked() {
        for wrong in [
            "10.0.0.0/33",
            "::1/129",
            "10.0.0/8",
            "proxy",
            "10.0.0.0/-1",
            "10.0.0.0/",
        ] {
            assert!(wrong.parse::<Proxies>().is_err(), "{wrong}");
        }
        assert_eq!(
            client("0.0.0.0/0", "192.0.2.1", &["198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            client("192.0.2.0/25", "192.0.2.128", &["198.51.100.7"]),
            "192.0.2.128"
        );
    }

    #[test]
    fn neighbours_share() {
        let of = |text: &str| neighbourhood(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("192.0.2.9"), "192.0.2.9");
    }
}
