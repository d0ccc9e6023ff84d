//! What the process calls instead of the C library's and the vDSO's clocks.
#![expect(
    unsafe_code,
    reason = "a function of the C library and entries of the vDSO are replaced"
)]

use std::ffi::{CStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use libc::{clockid_t, timespec};

use crate::control::{Clock, ENV_CONTROL, MAGIC, PAGE, REPLACED};
use crate::rules::{self, Page};

fn page() -> Option<&'static Page> {
    static PAGE_OF_PROCESS: OnceLock<Option<&'static Page>> = OnceLock::new();
    *PAGE_OF_PROCESS.get_or_init(|| {
        let mut path = std::env::var_os(ENV_CONTROL)?.as_bytes().to_vec();
        path.push(0);
        map(&path).filter(|page| page[0].load(Ordering::Acquire) == MAGIC)
    })
}

fn map(path: &[u8]) -> Option<&'static Page> {
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero, and lives longer than the call.
    let file = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) };
    let file = c_int::try_from(file).ok().filter(|file| *file >= 0)?;
    // SAFETY: no address is asked for, so no existing mapping is touched; touching beyond a short file is excluded by the
    // test, which makes files of one page only.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file,
            0,
        )
    };
    // SAFETY: the descriptor was opened above and nobody else knows it.
    unsafe { libc::syscall(libc::SYS_close, file) };
    if base == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: a page, page aligned, never unmapped, and every word of it is only reached through atomics.
    Some(unsafe { &*base.cast::<Page>() })
}

fn kind(id: clockid_t) -> Option<Clock> {
    match id {
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE => {
            Some(Clock::Monotonic)
        }
        libc::CLOCK_BOOTTIME => Some(Clock::Boottime),
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(Clock::Realtime),
        _ => None,
    }
}

/// Reads the machine's clock by a system call and says what it says here. -1 and errno where the kernel refuses.
fn read(id: clockid_t, out: *mut timespec, fakes: impl Fn(Clock) -> bool) -> c_int {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for the call.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, id, &raw mut time) };
    if result != 0 {
        return -1;
    }
    if let (Some(page), Some(clock)) = (page(), kind(id).filter(|clock| fakes(*clock))) {
        let real = u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
            + u64::try_from(time.tv_nsec).unwrap_or(0);
        let said = rules::says(page, clock, real);
        time.tv_sec = i64::try_from(said / 1_000_000_000).unwrap_or(i64::MAX);
        time.tv_nsec = i64::try_from(said % 1_000_000_000).unwrap_or(0);
    }
    if !out.is_null() {
        // SAFETY: clock_gettime(2) demands a valid place for the answer.
        unsafe { out.write(time) };
    }
    0
}

/// clock_gettime(2) of the C library: every clock.
// SAFETY: the name is the C library's, and so are the arguments' types: callers get what they expect.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn clock_gettime(id: clockid_t, out: *mut timespec) -> c_int {
    read(id, out, |_| true)
}

/// `__vdso_clock_gettime`: CLOCK_REALTIME is the machine's. It returns the errno, negative, and leaves errno alone.
extern "C" fn vdso_clock_gettime(id: clockid_t, out: *mut timespec) -> c_int {
    // SAFETY: the C library gives each thread an errno of its own, valid as long as the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { errno.read() };
    if read(id, out, |clock| clock != Clock::Realtime) == 0 {
        return 0;
    }
    // SAFETY: as above.
    let error = unsafe { errno.read() };
    // SAFETY: as above.
    unsafe { errno.write(before) };
    -error
}

/// Runs before `main`, while there is one thread.
// SAFETY: the C runtime calls the functions of this section once, with arguments that this one does not look at.
#[unsafe(link_section = ".init_array")]
#[used]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    let Some(page) = page() else {
        return;
    };
    let done = vdso::replace("__vdso_clock_gettime", vdso_clock_gettime as *const c_void);
    page[REPLACED].store(if done { 1 } else { 2 }, Ordering::Release);
}

/// The kernel's code in every process.
mod vdso {
    use super::*;

    /// Symbols looked at, at most: the vDSO has about a dozen.
    const SYMBOLS_MAX: usize = 64;

    /// A jump to a 64-bit address, at the entry of a function.
    #[cfg(target_arch = "x86_64")]
    fn jump(to: u64) -> Vec<u8> {
        // movabs rax, to; jmp rax: rax holds no argument.
        [&[0x48, 0xb8][..], &to.to_le_bytes(), &[0xff, 0xe0]].concat()
    }

    /// A jump to a 64-bit address, at the entry of a function.
    #[cfg(target_arch = "aarch64")]
    fn jump(to: u64) -> Vec<u8> {
        // ldr x16, .+8; br x16: x16 is for such jumps (AAPCS64, 6.1.1).
        [
            &[0x50, 0x00, 0x00, 0x58, 0x00, 0x02, 0x1f, 0xd6][..],
            &to.to_le_bytes(),
        ]
        .concat()
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn jump(_to: u64) -> Vec<u8> {
        Vec::new()
    }

    /// Has calls of the function `name` go to `to`. False: there is none, or its code cannot be written.
    pub(super) fn replace(name: &str, to: *const c_void) -> bool {
        let code = jump(to.expose_provenance() as u64);
        let Some(Function { image, len, entry }) = find(name).filter(|_| !code.is_empty()) else {
            return false;
        };
        // SAFETY: asks for a number only.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).unwrap_or(4096);
        let base = std::ptr::with_exposed_provenance_mut::<c_void>(image);
        // The kernel lets this mapping be changed as a whole only.
        let len = len.div_ceil(page) * page;
        let writable = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: these pages are the vDSO's; there is one thread, and it is not in them.
        if unsafe { libc::mprotect(base, len, writable) } != 0 {
            return false;
        }
        let target = std::ptr::with_exposed_provenance_mut::<u8>(entry);
        // SAFETY: the pages were made writable above, and `code` is shorter than the function, which is a hundred bytes long.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), target, code.len()) };
        // SAFETY: as the first call; a failure leaves them writable, which is no harm.
        unsafe { libc::mprotect(base, len, libc::PROT_READ | libc::PROT_EXEC) };
        true
    }

    /// Where a function is.
    struct Function {
        /// Address of the image.
        image: usize,
        /// Its length.
        len: usize,
        /// Address of the function.
        entry: usize,
    }

    /// Looks a function up in the ELF image that the kernel maps (elf(5)).
    fn find(name: &str) -> Option<Function> {
        // SAFETY: asks for a number only.
        let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
        let base = usize::try_from(base).ok().filter(|base| *base != 0)?;
        let at = |offset: usize| std::ptr::with_exposed_provenance::<u8>(base.wrapping_add(offset));
        // SAFETY: the kernel maps a well-formed ELF image there, for the life of the process; all offsets below are its own.
        let header = unsafe { at(0).cast::<libc::Elf64_Ehdr>().read() };
        let (mut load, mut len, mut dynamic) = (0, 0, None);
        for n in 0..usize::from(header.e_phnum) {
            let offset = usize::try_from(header.e_phoff).ok()? + n * size_of::<libc::Elf64_Phdr>();
            // SAFETY: as above.
            let program = unsafe { at(offset).cast::<libc::Elf64_Phdr>().read() };
            match program.p_type {
                libc::PT_LOAD => {
                    load = usize::try_from(program.p_vaddr).ok()?;
                    len = usize::try_from(program.p_memsz).ok()?;
                }
                libc::PT_DYNAMIC => dynamic = Some(usize::try_from(program.p_offset).ok()?),
                _ => {}
            }
        }
        let (mut names, mut symbols) = (None, None);
        for n in 0.. {
            // SAFETY: as above; the table ends with an entry of tag 0.
            let [tag, value] = unsafe { at(dynamic? + 16 * n).cast::<[u64; 2]>().read() };
            match tag {
                0 => break,
                5 => names = Some(usize::try_from(value).ok()? - load), // DT_STRTAB
                6 => symbols = Some(usize::try_from(value).ok()? - load), // DT_SYMTAB
                _ => {}
            }
        }
        let (names, symbols) = (names?, symbols?);
        // The names follow the symbols, as the linker lays them out.
        let count = names.checked_sub(symbols)? / size_of::<libc::Elf64_Sym>();
        (0..count.min(SYMBOLS_MAX)).find_map(|n| {
            let offset = symbols + n * size_of::<libc::Elf64_Sym>();
            // SAFETY: as above.
            let symbol = unsafe { at(offset).cast::<libc::Elf64_Sym>().read() };
            let text = at(names + usize::try_from(symbol.st_name).ok()?);
            // SAFETY: as above; names end with a zero.
            let found = unsafe { CStr::from_ptr(text.cast()) };
            let address = usize::try_from(symbol.st_value).ok()? - load;
            (found.to_bytes() == name.as_bytes()).then_some(Function {
                image: base,
                len,
                entry: base + address,
            })
        })
    }
}
