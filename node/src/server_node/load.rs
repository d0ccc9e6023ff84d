//! How busy this host is: the load average, and the established TCP connections to its VIPs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Sockets that are looked at, of each IP version: half a second of a processor's time. With more of them none are counted.
const SOCKETS_MAX: usize = 400_000;

/// Counting takes at most one part in so many of a processor's time.
const COUNTING_SHARE: u32 = 50;

/// The load average of the last minute; `None` where /proc has none.
pub(super) fn load_1m() -> Option<f64> {
    parse_load(&fs::read_to_string("/proc/loadavg").ok()?)
}

fn parse_load(text: &str) -> Option<f64> {
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    load.is_finite().then_some(load)
}

/// Counts connections now and then: the more there are to look at, the more rarely.
#[derive(Debug, Default)]
pub(super) struct Counting {
    next: Option<Instant>,
    last: Option<u64>,
}

impl Counting {
    /// The established TCP connections to one of `vips` as they were counted last. `None`: there are no VIPs, there are too
    /// many sockets, or /proc does not tell.
    pub(super) async fn count(&mut self, vips: &[IpAddr]) -> Option<u64> {
        if vips.is_empty() {
            *self = Self::default();
            return None;
        }
        if self.next.is_some_and(|next| Instant::now() < next) {
            return self.last;
        }
        let vips: BTreeSet<IpAddr> = vips.iter().copied().collect();
        let counted = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            (count_all(&vips).ok(), begun.elapsed())
        });
        let (count, took) = counted.await.unwrap_or((None, Duration::ZERO));
        self.next = Some(Instant::now() + took * COUNTING_SHARE);
        self.last = count;
        count
    }
}

/// Counts in both tables; connections of IPv4 to a socket of both versions are in the one of IPv6.
fn count_all(vips: &BTreeSet<IpAddr>) -> io::Result<u64> {
    let v4 = count_in(open("/proc/thread-self/net/tcp")?, vips)?;
    match open("/proc/thread-self/net/tcp6") {
        Ok(table) => Ok(v4 + count_in(table, vips)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(v4),
        Err(error) => Err(error),
    }
}

fn open(path: &str) -> io::Result<BufReader<File>> {
    File::open(path).map(BufReader::new)
}

fn count_in(table: impl BufRead, vips: &BTreeSet<IpAddr>) -> io::Result<u64> {
    let mut count = 0;
    for (sockets, line) in table.lines().skip(1).enumerate() {
        if sockets == SOCKETS_MAX {
            return Err(io::Error::other("too many sockets"));
        }
        let line = line?;
        count += u64::from(established_to(&line).is_some_and(|local| vips.contains(&local)));
    }
    Ok(count)
}

/// The local address of an established connection. Columns (Linux net/ipv4/tcp_ipv4.c, `get_tcp4_sock`): number, local
/// address, remote address, state, ..; 1 is TCP_ESTABLISHED.
fn established_to(line: &str) -> Option<IpAddr> {
    let mut columns = line.split_whitespace().skip(1);
    let local = columns.next()?;
    if columns.nth(1)? != "01" {
        return None;
    }
    let (address, _port) = local.split_once(':')?;
    // Words of 32 bits in the host's byte order.
    let word = |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok();
    match address.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?.to_ne_bytes());
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_load_of_a_minute_is_the_first_number() {
        assert_eq!(parse_load("0.42 0.30 0.21 2/345 6789\n"), Some(0.42));
        for text in ["", "x", "nan 0 0"] {
            assert_eq!(parse_load(text), None, "{text}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_established_connections_to_a_vip_count() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 6400010A:1B58 C800010A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20 4 30 10 -1
   1: 6400010A:1B58 C800010A:9C41 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0
   2: 0B00010A:0016 C800010A:9C42 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   3: 00000000:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   4: 0000000000000000FFFF00006400010A:1B58 0000000000000000FFFF0000C800010A:9C43 01 00000000:00000000 00:0 0 0 0 4
   5: B80D0120000000000000000000010000:1B58 B80D0120000000000000000011000000:9C44 01 00000000:00000000 00:0 0 0 0 5
   6: 6400010A:1B58
";
        for (vips, expected) in [
            (&["10.1.0.100"][..], 2),
            (&["10.1.0.100", "2001:db8::100"], 3),
            (&["10.1.0.101"], 0),
        ] {
            let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
            assert_eq!(
                count_in(table.as_bytes(), &vips).unwrap(),
                expected,
                "{vips:?}"
            );
        }
    }

    #[tokio::test]
    async fn connections_of_this_host_are_counted() {
        let listener = TcpListener::bind("127.77.66.55:0").unwrap();
        let address = listener.local_addr().unwrap();
        let vips = [address.ip()];
        assert_eq!(Counting::default().count(&vips).await, Some(0));
        let _client = TcpStream::connect(address).unwrap();
        let _server = listener.accept().unwrap();
        assert_eq!(Counting::default().count(&vips).await, Some(1));
        assert_eq!(Counting::default().count(&[]).await, None);
    }
}
