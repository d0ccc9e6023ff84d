//! The guard keeps the kernel silent, leaves ARP alone, and outlives the program that put it there.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use dataplane::Guard;

use super::lab::{Lab, PORT, VIP, ip, run};

#[test]
fn the_guard_drops_for_the_kernel_and_survives_its_owner() {
    let Some(lab) = Lab::new("the_guard_drops_for_the_kernel_and_survives_its_owner") else {
        return;
    };
    // Worst case: the VIP is an address of the ATM's own kernel, and something listens there.
    ip(&[
        "-n",
        &lab.name("atm"),
        "addr",
        "add",
        &format!("{VIP}/32"),
        "dev",
        "lo",
    ]);
    let _listener = lab.on("atm", || TcpListener::bind((VIP, PORT)).unwrap());
    let reaches = |limit: u64| lab.on("client", move || connect(Duration::from_millis(limit)));
    assert!(reaches(3000), "without the guard the kernel answers");

    let guard = lab.on("atm", || Guard::install("e0", &[VIP.into()]).unwrap());
    assert!(!reaches(700), "the kernel answered for the VIP");
    let neighbours = run(
        "ip",
        &["-n", &lab.name("client"), "neigh", "show", &VIP.to_string()],
    )
    .unwrap();
    assert!(
        neighbours.contains("lladdr"),
        "ARP is not the guard's: {neighbours}"
    );

    // The same addresses again, then none, then the first ones; the last value is dropped, not removed.
    lab.on("atm", {
        let guard = guard.clone();
        move || guard.update(&[VIP.into()]).unwrap()
    });
    assert!(!reaches(300));
    lab.on("atm", {
        let guard = guard.clone();
        move || guard.update(&[]).unwrap()
    });
    assert!(reaches(3000), "an empty guard guards nothing");
    lab.on("atm", move || guard.update(&[VIP.into()]).unwrap());
    assert!(!reaches(300), "the guard was gone with its owner");

    // The next process takes it over and takes it away, and may do so twice.
    lab.on("atm", || {
        Guard::install("e0", &[VIP.into()])
            .unwrap()
            .remove()
            .unwrap()
    });
    assert!(reaches(3000));
    // Longer than IFNAMSIZ. (A name that is merely missing is accepted by kernels that hook devices by name.)
    let error = lab.on("atm", || {
        Guard::install("a-name-longer-than-any-interface", &[VIP.into()]).unwrap_err()
    });
    assert!(error.to_string().starts_with("nft refused"), "{error}");
}

fn connect(limit: Duration) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((VIP, PORT)), limit).is_ok()
}
