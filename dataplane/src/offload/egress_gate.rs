//! The lease in the kernel: a BPF program at the interface's egress drops what the engine sends after the deadline.
//!
//! The engine looks at the clock and then makes a system call; a process that is stopped or starved exactly in between
//! would send one batch of stale frames when it goes on. The gate reads the clock and the deadline for each of them, after
//! that system call. It needs tcx (Linux 6.6) and CAP_BPF with CAP_NET_ADMIN; without them the engine's own look is all.
//!
//! Invariant: only frames with [`VOICE_MARK`] are looked at, so the host's own traffic always passes.
#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe binding that needs neither a C compiler nor an object file"
)]

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// `SO_MARK` of a socket whose frames need the lease. An arbitrary number; positive, as BPF compares it sign-extended.
pub(crate) const VOICE_MARK: u32 = 0x4154_4d01;

/// What the program and the process share, in this order: the deadline, and how many frames it dropped.
const VALUE_WORDS: usize = 2;

/// An array map that can be mapped takes whole pages.
const PAGE: usize = 4096;

// linux/bpf.h
const BPF_MAP_CREATE: c_int = 0;
const BPF_PROG_LOAD: c_int = 5;
const BPF_LINK_CREATE: c_int = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_EGRESS: u32 = 47;
/// The loopback interface of every network namespace (Linux include/net/net_namespace.h, `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// Length of `union bpf_attr` as far as it is filled here; the kernel takes the rest for zero.
const ATTR_WORDS: usize = 16;

/// The gate of one interface, and of the way to the host's own stack. Dropped with the process, it goes too: a dead process sends
/// nothing.
#[derive(Debug)]
pub(crate) struct EgressGate {
    program: OwnedFd,
    link: Mutex<Option<OwnedFd>>,
    loopback: Mutex<Option<OwnedFd>>,
    shared: Shared,
    /// How far this process's CLOCK_BOOTTIME is ahead of the kernel's own, in nanoseconds: not 0 in a time namespace.
    ahead: i64,
}

impl EgressGate {
    /// Loads the program; nothing passes that needs the lease until a deadline is set.
    pub(crate) fn load() -> io::Result<Self> {
        let mut attr = [0_u64; ATTR_WORDS];
        attr[0] = pair(BPF_MAP_TYPE_ARRAY, 4); // type, key size
        attr[1] = pair(8 * 2, 1); // value size, entries
        attr[2] = u64::from(BPF_F_MMAPABLE); // flags, inner map
        let map = bpf(BPF_MAP_CREATE, &attr)?;
        let shared = Shared::new(&map)?;
        let program = program(u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?);
        let license = c"Apache-2.0";
        let mut attr = [0_u64; ATTR_WORDS];
        attr[0] = pair(
            BPF_PROG_TYPE_SCHED_CLS,
            u32::try_from(program.len()).map_err(io::Error::other)?,
        );
        attr[1] = program.as_ptr().addr() as u64;
        attr[2] = license.as_ptr().addr() as u64;
        let program = bpf(BPF_PROG_LOAD, &attr)?;
        Ok(Self {
            program,
            link: Mutex::default(),
            loopback: Mutex::default(),
            shared,
            ahead: std::fs::read_to_string(TIME_NAMESPACE)
                .map_or(0, |offsets| boottime_ahead(&offsets)),
        })
    }

    /// Stands at the egress of this interface of the thread's network namespace, and no longer at another's.
    pub(crate) fn attach(&self, interface_index: u32) -> io::Result<()> {
        self.stand_at(&self.link, interface_index)
    }

    /// Stands at the egress of the loopback interface, besides.
    pub(crate) fn attach_to_loopback(&self) -> io::Result<()> {
        self.stand_at(&self.loopback, LOOPBACK)
    }

    fn stand_at(&self, place: &Mutex<Option<OwnedFd>>, interface_index: u32) -> io::Result<()> {
        let mut attr = [0_u64; ATTR_WORDS];
        let program = u32::try_from(self.program.as_raw_fd()).map_err(io::Error::other)?;
        attr[0] = pair(program, interface_index);
        attr[1] = u64::from(BPF_TCX_EGRESS);
        let mut link = place.lock().unwrap_or_else(PoisonError::into_inner);
        // A program stands at one interface once: the old place is left first. Nobody sends meanwhile, the port is closed.
        *link = None;
        *link = Some(bpf(BPF_LINK_CREATE, &attr)?);
        Ok(())
    }

    /// The deadline in nanoseconds of this process's CLOCK_BOOTTIME; 0 lets nothing pass.
    pub(crate) fn set_deadline(&self, nanos: u64) {
        // The program reads the clock of the machine, whatever namespace the process is in. No deadline stays none.
        let machine = match nanos {
            0 => 0,
            nanos => nanos.saturating_add_signed(self.ahead.saturating_neg()),
        };
        self.shared.word(0).store(machine, Ordering::Release);
    }

    /// Frames it dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.word(1).load(Ordering::Relaxed)
    }
}

/// Offsets of the clocks of this process's time namespace (time_namespaces(7)); not there where the kernel has none.
const TIME_NAMESPACE: &str = "/proc/self/timens_offsets";

/// The offset of CLOCK_BOOTTIME in nanoseconds. A line is the clock's name, seconds, nanoseconds.
fn boottime_ahead(offsets: &str) -> i64 {
    let found = offsets.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        fields.next().filter(|clock| *clock == "boottime")?;
        let seconds: i64 = fields.next()?.parse().ok()?;
        let nanos: i64 = fields.next()?.parse().ok()?;
        Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    });
    found.unwrap_or(0)
}

/// The map's page in this process.
#[derive(Debug)]
struct Shared {
    base: NonNull<AtomicU64>,
}

// SAFETY: the page is only reached through atomics, and mapped until this value is dropped.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(map: &OwnedFd) -> io::Result<Self> {
        // SAFETY: no address is asked for, so no existing mapping is touched.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                0,
            )?
        };
        NonNull::new(base.cast())
            .map(|base| Self { base })
            .ok_or_else(|| io::Error::other("mmap gave address 0"))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < VALUE_WORDS);
        // SAFETY: the mapping is a page, page aligned, lives as long as `self`, and `index` is below VALUE_WORDS.
        unsafe { self.base.add(index).as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing else unmaps; every reference borrows `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), PAGE) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The program (Linux Documentation/bpf/standardization/instruction-set.rst): code, destination and source registers,
/// offset, immediate.
fn program(map: u32) -> [u64; 14] {
    const MOV_REG: u8 = 0xbf;
    const MOV_IMM: u8 = 0xb7;
    const LOAD_U32: u8 = 0x61;
    const LOAD_U64: u8 = 0x79;
    const LOAD_IMM64: u8 = 0x18;
    const JUMP_NE_IMM: u8 = 0x55;
    const JUMP_LT_REG: u8 = 0xad;
    const CALL: u8 = 0x85;
    const ATOMIC_U64: u8 = 0xdb;
    const EXIT: u8 = 0x95;
    const PSEUDO_MAP_VALUE: u8 = 2;
    const MARK_OFFSET: i16 = 8; // of struct __sk_buff
    const KTIME_GET_BOOT_NS: u32 = 125;
    const NEXT: u32 = u32::MAX; // TCX_NEXT, -1
    const DROP: u32 = 2; // TCX_DROP
    [
        instruction(LOAD_U32, 2, 1, MARK_OFFSET, 0),
        instruction(MOV_IMM, 0, 0, 0, NEXT),
        instruction(JUMP_NE_IMM, 2, 0, 10, VOICE_MARK), // to EXIT
        instruction(LOAD_IMM64, 7, PSEUDO_MAP_VALUE, 0, map),
        instruction(0, 0, 0, 0, 0), // second half: offset 0 in the value
        instruction(CALL, 0, 0, 0, KTIME_GET_BOOT_NS),
        instruction(MOV_REG, 1, 0, 0, 0),
        instruction(LOAD_U64, 2, 7, 0, 0),
        instruction(MOV_IMM, 0, 0, 0, NEXT),
        instruction(JUMP_LT_REG, 1, 2, 3, 0), // now < deadline: to EXIT
        instruction(MOV_IMM, 1, 0, 0, 1),
        instruction(ATOMIC_U64, 7, 1, 8, 0), // dropped += 1
        instruction(MOV_IMM, 0, 0, 0, DROP),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> u64 {
    let [o0, o1] = offset.to_ne_bytes();
    let [i0, i1, i2, i3] = immediate.to_ne_bytes();
    let registers = if cfg!(target_endian = "little") {
        source << 4 | destination
    } else {
        destination << 4 | source
    };
    u64::from_ne_bytes([code, registers, o0, o1, i0, i1, i2, i3])
}

/// Two 32-bit fields of `union bpf_attr`, as they lie in memory.
fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn bpf(command: c_int, attr: &[u64; ATTR_WORDS]) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads at most the given length of `attr`, and what its pointers name lives until the call returns.
    let fd: c_long = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attr.as_ptr(),
            u32::try_from(size_of_val(attr)).map_err(io::Error::other)?,
        )
    };
    let fd = c_int::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::UdpSocket;
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;
    use crate::clock::boottime;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let file = "monotonic           7         0\nboottime        -5000  250000000\n";
        assert_eq!(boottime_ahead(file), -4_999_750_000_000);
        assert_eq!(boottime_ahead("monotonic 7 0\n"), 0);
        assert_eq!(boottime_ahead("boottime x 0\n"), 0);
    }

    #[test]
    fn what_is_marked_passes_before_the_deadline_only() {
        // A namespace of this thread alone: its loopback is nobody else's.
        thread::spawn(|| match namespace().and_then(|()| EgressGate::load()) {
            Ok(gate) => judge(&gate),
            Err(reason) => {
                let _ = writeln!(
                    io::stderr(),
                    "skipped: no gate in this kernel or for this user: {reason}"
                );
            }
        })
        .join()
        .unwrap();
    }

    fn namespace() -> io::Result<()> {
        // SAFETY: only the network namespace of this thread changes; nothing of the process depends on it.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()?;
        if up.success() {
            Ok(())
        } else {
            Err(io::Error::other("ip cannot bring lo up"))
        }
    }

    fn judge(gate: &EgressGate) {
        if let Err(reason) = gate.attach(LOOPBACK).and_then(|()| gate.attach(LOOPBACK)) {
            let _ = writeln!(io::stderr(), "skipped: no gate in this kernel: {reason}");
            return;
        }
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let to = receiver.local_addr().unwrap();
        let passes = |mark: u32| {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            crate::port::set_mark(&sender, mark).unwrap();
            // The kernel may report the drop; what counts is what arrives.
            let _ = sender.send_to(b"x", to);
            receiver.recv(&mut [0; 8]).is_ok()
        };
        let now = || boottime().as_nanos();
        assert!(!passes(VOICE_MARK), "no deadline was set yet");
        assert!(passes(0));
        gate.set_deadline(now() + 60_000_000_000);
        assert!(passes(VOICE_MARK));
        gate.set_deadline(now() - 1);
        assert!(!passes(VOICE_MARK), "the deadline is over");
        assert!(passes(0));
        assert!(passes(VOICE_MARK + 1), "another program's mark");
        assert_eq!(gate.dropped(), 2);
        gate.set_deadline(u64::MAX);
        assert!(passes(VOICE_MARK));
    }
}
