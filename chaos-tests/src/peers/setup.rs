//! The files of the other routers: keepalived, conntrackd, ucarp, and the packet filter that goes with them. Pure texts.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::contender::Contender;
use crate::lab::LINES_PORT;

/// Of the two routers, in the order of their hosts: the first one is master while both live. High ones, because what a router
/// lacks to 256 is added to the time it waits.
const PRIORITIES: [u8; 2] = [200, 190];

/// One router of a pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Router<'a> {
    /// 0 for the preferred one.
    pub(super) number: usize,
    pub(super) own: Ipv4Addr,
    pub(super) other: Ipv4Addr,
    pub(super) vip: Ipv4Addr,
    /// Where the servers send their answers: a second address that moves with the VIP.
    pub(super) gateway: Ipv4Addr,
    pub(super) servers: &'a [Ipv4Addr],
    /// Its host's directory.
    pub(super) dir: &'a Path,
}

impl Router<'_> {
    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// `keepalived.conf`: an ordinary pair, the preferred one master, sub-second intervals by VRRPv3.
    pub(super) fn keepalived_conf(&self, contender: Contender) -> String {
        let advert = contender.beat();
        let version = if advert < Duration::from_secs(1) {
            3
        } else {
            2
        };
        let (state, priority) = match self.number {
            0 => ("MASTER", PRIORITIES[0]),
            _ => ("BACKUP", PRIORITIES[1]),
        };
        let mut text = format!(
            "global_defs {{\n router_id {own}\n vrrp_version {version}\n enable_script_security\n script_user root\n}}\n\n\
             vrrp_instance vip {{\n state {state}\n interface eth0\n virtual_router_id 51\n priority {priority}\n advert_int {advert}\n",
            own = self.own,
            advert = seconds(advert),
        );
        if contender == Contender::Keepalived10Ms {
            // What its manual recommends for such intervals, and what the fast profile of this product does, too.
            text = text.replace(
                " script_user root\n",
                " script_user root\n vrrp_rt_priority 50\n vrrp_no_swap\n",
            );
        }
        let _ = write!(text, " virtual_ipaddress {{\n  {}/32 dev eth0\n", self.vip);
        if contender.keeps_connections() {
            let _ = write!(text, "  {}/32 dev eth0\n }}\n", self.gateway);
            for (state, word) in [
                ("master", "primary"),
                ("backup", "backup"),
                ("fault", "fault"),
            ] {
                let _ = writeln!(
                    text,
                    " notify_{state} \"{} {word}\"",
                    self.file("notify.sh")
                );
            }
        } else {
            text += " }\n";
        }
        text + "}\n"
    }

    /// Arguments of keepalived: in the foreground, with files of its own.
    pub(super) fn keepalived(&self) -> Vec<String> {
        let words = [
            "keepalived",
            "--dont-fork",
            "--log-console",
            "--vrrp",
            "--use-file",
            &self.file("keepalived.conf"),
            "--pid",
            &self.file("keepalived.pid"),
            "--vrrp_pid",
            &self.file("vrrp.pid"),
        ];
        words.map(ToOwned::to_owned).to_vec()
    }

    /// `conntrackd.conf`: reliable synchronisation (FTFW) of TCP by UDP between the two routers.
    pub(super) fn conntrackd_conf(&self) -> String {
        format!(
            "Sync {{\n Mode FTFW {{\n  DisableExternalCache Off\n }}\n UDP {{\n  IPv4_address {own}\n  IPv4_Destination_Address {other}\n  \
             Port 3780\n  Interface eth0\n  SndSocketBuffer 1249280\n  RcvSocketBuffer 1249280\n  Checksum on\n }}\n}}\n\
             General {{\n Systemd Off\n HashSize 32768\n HashLimit 131072\n LogFile {log}\n Syslog Off\n LockFile {lock}\n UNIX {{\n  Path {socket}\n }}\n \
             NetlinkBufferSize 2097152\n NetlinkBufferSizeMaxGrowth 8388608\n Filter From Kernelspace {{\n  Protocol Accept {{\n   TCP\n  }}\n  \
             Address Ignore {{\n   IPv4_address 127.0.0.1\n   IPv4_address {own}\n   IPv4_address {other}\n  }}\n }}\n}}\n",
            own = self.own,
            other = self.other,
            log = self.file("conntrackd-own.log"),
            lock = self.file("conntrackd.lock"),
            socket = self.file("conntrackd.ctl"),
        )
    }

    /// Arguments of conntrackd, in the foreground.
    pub(super) fn conntrackd(&self) -> Vec<String> {
        ["conntrackd", "-C", &self.file("conntrackd.conf")]
            .map(ToOwned::to_owned)
            .to_vec()
    }

    /// What keepalived runs when its state changes: the steps of conntrackd's own `primary-backup.sh`.
    pub(super) fn notify_script(&self) -> String {
        format!(
            "#!/bin/sh\nc='conntrackd -C {conf}'\ncase \"$1\" in\n primary) $c -c; $c -f; $c -R; $c -B ;;\n backup) $c -t; $c -n ;;\n fault) $c -t ;;\nesac\n",
            conf = self.file("conntrackd.conf"),
        )
    }

    /// nft: each new connection to the next server, and nothing that belongs to no known connection.
    pub(super) fn filter(&self) -> String {
        let count = self.servers.len();
        let mut map = String::new();
        for (n, server) in self.servers.iter().enumerate() {
            let _ = write!(map, "{}{n} : {server}", if n == 0 { "" } else { ", " });
        }
        format!(
            "table ip balance {{\n chain pre {{\n  type nat hook prerouting priority -100;\n  \
             ip daddr {vip} tcp dport {LINES_PORT} dnat to numgen inc mod {count} map {{ {map} }}\n }}\n \
             chain guard {{\n  type filter hook prerouting priority -90;\n  ct state invalid drop\n }}\n}}\n",
            vip = self.vip,
        )
    }

    /// Arguments of ucarp, in the foreground.
    pub(super) fn ucarp(&self) -> Vec<String> {
        let (own, vip) = (self.own.to_string(), self.vip.to_string());
        let (up, down) = (self.file("up.sh"), self.file("down.sh"));
        let skew = if self.number == 0 { "0" } else { "100" };
        let mut words = vec![
            "ucarp",
            "--interface=eth0",
            "--vhid=1",
            "--pass=failover",
            "--advbase=1",
            "--srcip",
            &own,
            "--addr",
            &vip,
            "--advskew",
            skew,
            "--upscript",
            &up,
            "--downscript",
            &down,
        ];
        if self.number == 0 {
            words.push("--preempt");
        }
        words.into_iter().map(ToOwned::to_owned).collect()
    }

    /// The two scripts ucarp runs: one takes the VIP, the other gives it up.
    pub(super) fn ucarp_scripts(&self) -> [(&'static str, String); 2] {
        let script = |verb| format!("#!/bin/sh\nip address {verb} {}/32 dev eth0\n", self.vip);
        [("up.sh", script("add")), ("down.sh", script("del"))]
    }
}

/// `1`, `0.1`, `0.01`.
fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(dir: &Path) -> Router<'_> {
        const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 11), Ipv4Addr::new(10, 1, 0, 12)];
        Router {
            number: 1,
            own: Ipv4Addr::new(10, 1, 0, 2),
            other: Ipv4Addr::new(10, 1, 0, 1),
            vip: Ipv4Addr::new(10, 1, 0, 100),
            gateway: Ipv4Addr::new(10, 1, 0, 101),
            servers: &SERVERS,
            dir,
        }
    }

    #[test]
    fn intervals_below_a_second_need_the_third_version() {
        let router = router(Path::new("/d"));
        for (contender, version, interval) in [
            (Contender::Keepalived1S, 2, "1"),
            (Contender::Keepalived100Ms, 3, "0.1"),
            (Contender::Keepalived10Ms, 3, "0.01"),
        ] {
            let text = router.keepalived_conf(contender);
            assert!(
                text.contains(&format!("vrrp_version {version}\n")),
                "{text}"
            );
            assert!(text.contains(&format!("advert_int {interval}\n")), "{text}");
            assert_eq!(text.matches('{').count(), text.matches('}').count());
        }
    }

    #[test]
    fn only_conntrackd_moves_a_gateway_and_runs_scripts() {
        let router = router(Path::new("/d"));
        let plain = router.keepalived_conf(Contender::Keepalived100Ms);
        assert!(!plain.contains("notify_") && !plain.contains("10.1.0.101"));
        let tuned = router.keepalived_conf(Contender::Conntrackd100Ms);
        assert!(
            tuned.contains("notify_master \"/d/notify.sh primary\"\n"),
            "{tuned}"
        );
        assert!(tuned.contains("10.1.0.101/32"));
        assert_eq!(tuned.matches('{').count(), tuned.matches('}').count());
        assert!(
            router
                .filter()
                .contains("mod 2 map { 0 : 10.1.0.11, 1 : 10.1.0.12 }")
        );
    }
}
