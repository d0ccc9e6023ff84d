//! The observer sees what ATMs send, also behind a cut, and tells one voice from two.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use chaos_tests::lab::{Fault, Lab, OBSERVER_INTERFACE, ready};
use chaos_tests::observer::{
    Contradiction, Kind, Mac, Observation, Observer, PROBER_MAC, Prober, RawPort, Rules, Verdict,
    gratuitous_arp, voices,
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

/// Longer than the shortest tenure.
const TENURE: Duration = Duration::from_millis(150);

fn lab() -> Lab {
    Lab::builder()
        .atms(2)
        .servers(1)
        .client()
        .without_daemons()
        .start()
        .unwrap()
}

/// An ATM of which only the wire side exists.
struct Speaker {
    mac: Mac,
    server: Mac,
    port: RawPort,
}

impl Speaker {
    fn on(lab: &Lab, host: &str) -> Self {
        let atm = lab.host(host).unwrap();
        Self {
            mac: atm.mac(),
            server: lab.host("serv1").unwrap().mac(),
            port: RawPort::open(atm.namespace(), "eth0").unwrap(),
        }
    }

    fn claim(&self) {
        for reply in [false, true] {
            self.port
                .send(&gratuitous_arp(self.mac, VIP, reply))
                .unwrap();
        }
    }

    fn answer(&self) {
        let mut frame = gratuitous_arp(self.mac, VIP, true);
        frame[..6].copy_from_slice(&PROBER_MAC);
        frame[32..38].copy_from_slice(&PROBER_MAC);
        frame[38..42].copy_from_slice(&[10, 1, 0, 254]);
        self.port.send(&frame).unwrap();
    }

    /// An IPIP packet to the server with a TCP segment for the VIP in it.
    fn forward(&self, client_port: u16) {
        let mut frame = [&self.server[..], &self.mac, &[0x08, 0]].concat();
        frame.extend([
            0x45, 0, 0, 60, 0, 0, 0, 0, 64, 4, 0, 0, 10, 1, 0, 1, 10, 1, 0, 11,
        ]);
        frame.extend([
            0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 0, 200, 10, 1, 0, 100,
        ]);
        frame.extend(client_port.to_be_bytes());
        frame.extend([0, 25]);
        frame.extend([0; 16]);
        self.port.send(&frame).unwrap();
    }
}

fn kinds_of(observation: &Observation, mac: Mac) -> Vec<Kind> {
    let mut kinds: Vec<_> = observation
        .events
        .iter()
        .filter(|e| e.source == mac)
        .map(|e| e.kind)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[test]
fn an_orderly_takeover_is_one_voice() {
    if !ready() {
        return;
    }
    let lab = lab();
    let (first, second) = (Speaker::on(&lab, "atm1"), Speaker::on(&lab, "atm2"));
    let observer = Observer::start(&lab).unwrap();
    first.claim();
    first.forward(40001);
    first.answer();
    sleep(TENURE);
    first.claim();
    second.claim();
    second.forward(40001);
    sleep(TENURE);
    first.claim();
    first.forward(40002);
    let observation = observer.stop();
    assert_eq!(observation.verdict(&Rules::default()), Verdict::OneVoice);

    assert_eq!(observation.events.len(), 2 + 1 + 1 + 2 + 2 + 1 + 2 + 1);
    let spoken = [Kind::GratuitousArp, Kind::ArpAnswer, Kind::Tunnelled];
    assert_eq!(kinds_of(&observation, first.mac), spoken);
    let speakers: Vec<_> = voices(&observation.events).iter().map(|v| v.mac).collect();
    assert_eq!(speakers, [first.mac, second.mac, first.mac]);
    let flows: Vec<_> = observation.events.iter().filter_map(|e| e.flow).collect();
    assert_eq!(
        flows.iter().map(|f| f.client_port).collect::<Vec<_>>(),
        [40001, 40001, 40002]
    );
    assert!(
        flows
            .iter()
            .all(|f| f.service_port == 25 && f.protocol == 6)
    );
}

#[test]
fn a_second_forwarder_is_reported() {
    if !ready() {
        return;
    }
    let lab = lab();
    let (first, second) = (Speaker::on(&lab, "atm1"), Speaker::on(&lab, "atm2"));
    let observer = Observer::start(&lab).unwrap();
    first.claim();
    first.forward(40001);
    sleep(TENURE);
    second.claim();
    second.forward(40002);
    sleep(Duration::from_millis(20));
    first.forward(40001);
    let Verdict::TwoVoices(found) = observer.stop().verdict(&Rules::default()) else {
        panic!("one voice")
    };
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].holder, found[0].other), (second.mac, first.mac));
    assert_eq!(found[0].kind, Contradiction::Spoke(Kind::Tunnelled));
}

#[test]
fn two_atms_that_answer_a_prober_are_reported() {
    if !ready() {
        return;
    }
    let lab = lab();
    let (first, second) = (Speaker::on(&lab, "atm1"), Speaker::on(&lab, "atm2"));
    let observer = Observer::start(&lab).unwrap();
    let claims = |speaker: &Speaker| {
        speaker.claim();
        sleep(TENURE);
        speaker.answer();
    };
    claims(&first);
    claims(&second);
    first.answer();
    let Verdict::TwoVoices(found) = observer.stop().verdict(&Rules::default()) else {
        panic!("one voice")
    };
    assert_eq!(
        found.iter().map(|f| f.kind).collect::<Vec<_>>(),
        [Contradiction::Spoke(Kind::ArpAnswer)]
    );
}

#[test]
fn an_atm_behind_a_cut_link_is_heard() {
    if !ready() {
        return;
    }
    let lab = lab();
    let (first, second) = (Speaker::on(&lab, "atm1"), Speaker::on(&lab, "atm2"));
    let observer = Observer::start(&lab).unwrap();
    first.claim();
    lab.fault(Fault::Cut, "atm1").unwrap();
    sleep(TENURE);
    second.claim();
    sleep(Duration::from_millis(20));
    first.forward(40001);
    let Verdict::TwoVoices(found) = observer.stop().verdict(&Rules::default()) else {
        panic!("one voice")
    };
    assert_eq!(found[0].other, first.mac);
}

#[test]
fn a_prober_asks_and_its_answers_reach_no_client() {
    if !ready() {
        return;
    }
    let lab = lab();
    // A kernel that has the address answers like an ATM would, and from the ATM's MAC.
    let holder = lab.host("atm1").unwrap();
    assert!(
        holder
            .exec(["ip", "addr", "add", "10.1.0.100/32", "dev", "eth0"])
            .unwrap()
            .status
            .success()
    );
    let observer = Observer::start(&lab).unwrap();
    let prober = Prober::start(&lab, VIP, Duration::from_millis(5)).unwrap();
    sleep(Duration::from_millis(300));
    drop(prober);
    let observation = observer.stop();
    assert_eq!(observation.verdict(&Rules::default()), Verdict::OneVoice);
    let answers = observation
        .events
        .iter()
        .filter(|e| e.kind == Kind::ArpAnswer && e.source == holder.mac())
        .count();
    assert!(answers >= 10, "{answers} answers in 300 ms");
    let learned = lab
        .host("client")
        .unwrap()
        .exec(["ip", "neigh", "show", "10.1.0.100"])
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&learned.stdout),
        "",
        "the client learned from the prober"
    );
}

#[test]
fn the_clients_own_kernel_does_not_see_the_copies() {
    if !ready() {
        return;
    }
    let lab = lab();
    let first = Speaker::on(&lab, "atm1");
    let observer = Observer::start(&lab).unwrap();
    for port in 0..1000 {
        first.forward(port);
    }
    let observation = observer.stop();
    assert!(observation.complete && observation.missed == 0 && observation.overflow == 0);
    assert_eq!(observation.events.len(), 1000);
    let ordered = observation.events.windows(2).all(|w| w[0].at <= w[1].at);
    assert!(ordered, "frames of one sender keep their order");
    let path = format!("/sys/class/net/{OBSERVER_INTERFACE}/statistics/tx_packets");
    let sent = lab.host("client").unwrap().exec(["cat", &path]).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&sent.stdout),
        "0\n",
        "the client answered a copy"
    );
}

#[test]
fn an_observation_without_its_end_proves_nothing() {
    let observation = Observation::default();
    let nothing = Verdict::Invalid {
        overflow: 0,
        missed: 0,
        complete: false,
    };
    assert_eq!(observation.verdict(&Rules::default()), nothing);
    let missed = Observation {
        complete: true,
        missed: 1,
        ..Observation::default()
    };
    assert!(matches!(
        missed.verdict(&Rules::default()),
        Verdict::Invalid { missed: 1, .. }
    ));
}
