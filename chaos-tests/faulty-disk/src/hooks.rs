//! What the process calls instead of the C library. The real operations are made by `syscall(2)`, so nothing here can call
//! itself, and the library's own writes are never struck.
#![expect(
    unsafe_code,
    reason = "functions of the C library are replaced, with its types and by its names"
)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use crate::control::{Class, ENV_CONTROL, ENV_PREFIX, ENV_UNDO, MAGIC, NAME, NAME_MAX, PAGE, word};
use crate::rules::{self, Fate, Page};
use crate::undo;

/// Between two looks of an operation that hangs.
const LOOK_NANOS: u64 = 1_000_000;

/// Longest path that is looked at; the kernel's own limit.
const PATH_MAX: usize = 4096;

/// Buffers of one call that are looked at: the kernel's own limit.
const BUFFERS_MAX: usize = 1024;

/// What the environment says, found out at the first operation.
struct Shim {
    page: &'static Page,
    prefix: Vec<u8>,
    /// Directory of what is kept; `None`: nothing is.
    undo: Option<c_int>,
}

fn shim() -> Option<&'static Shim> {
    static SHIM: OnceLock<Option<Shim>> = OnceLock::new();
    SHIM.get_or_init(|| {
        let control = std::env::var_os(ENV_CONTROL)?;
        let prefix = std::env::var_os(ENV_PREFIX)?;
        let page = sys::map(&control)?;
        if page[0].load(Ordering::Acquire) != MAGIC {
            return None;
        }
        Some(Shim {
            page,
            prefix: prefix.as_bytes().to_vec(),
            undo: std::env::var_os(ENV_UNDO).and_then(|path| sys::open_directory(&path)),
        })
    })
    .as_ref()
}

impl Shim {
    fn concerns(&self, path: &[u8]) -> bool {
        let below = path
            .strip_prefix(self.prefix.as_slice())
            .is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'));
        if !below {
            return false;
        }
        let words = self.page[NAME..NAME + NAME_MAX / 8].iter();
        let text: Vec<u8> = words
            .flat_map(|word| word.load(Ordering::Acquire).to_ne_bytes())
            .take_while(|byte| *byte != 0)
            .collect();
        text.is_empty() || path.windows(text.len()).any(|window| window == text)
    }
}

/// The library's word on an operation on `file`, if it has one.
fn fate_of_file(file: c_int, class: Class) -> Option<(&'static Shim, Fate)> {
    let shim = shim()?;
    let mut buffer = [0; PATH_MAX];
    let path = sys::path_of(file, &mut buffer)?;
    shim.concerns(path)
        .then(|| (shim, rules::fate(shim.page, class)))
}

/// The library's word on a change of the file called `path`.
fn fate_of_path(path: *const c_char) -> Option<(&'static Shim, Fate)> {
    let shim = shim()?;
    let path = sys::text(path)?;
    shim.concerns(path)
        .then(|| (shim, rules::fate(shim.page, Class::Change)))
}

/// Waits as the fate says. `Some`: what the caller gets instead of the operation.
fn before(shim: &Shim, class: Class, fate: Fate) -> Option<Instead> {
    match fate {
        Fate::Pass => None,
        Fate::After(nanos) => {
            sys::sleep(nanos);
            None
        }
        Fate::Wait => {
            let hanging = &shim.page[class.word(word::HANGING)];
            hanging.fetch_add(1, Ordering::AcqRel);
            while rules::hangs(shim.page, class) {
                sys::sleep(LOOK_NANOS);
            }
            hanging.fetch_sub(1, Ordering::AcqRel);
            None
        }
        Fate::Fail(errno) => Some(Instead::Failure(errno)),
        Fate::Lie => Some(Instead::Success),
        Fate::Torn(keep, errno) => Some(Instead::Part(keep, errno)),
        Fate::Kill(keep) => Some(Instead::PartAndDeath(keep)),
    }
}

enum Instead {
    Success,
    Failure(c_int),
    Part(u64, c_int),
    PartAndDeath(u64),
}

/// A sync, or a change of names: it is done or it is not.
fn whole(
    class: Class,
    told: Option<(&'static Shim, Fate)>,
    real: impl FnOnce() -> c_long,
) -> c_int {
    let instead = told.and_then(|(shim, fate)| before(shim, class, fate));
    match instead {
        None => narrow(real()),
        Some(Instead::Success) => 0,
        Some(Instead::Failure(errno) | Instead::Part(_, errno)) => sys::fail(errno),
        Some(Instead::PartAndDeath(_)) => sys::die(),
    }
}

fn narrow(result: c_long) -> c_int {
    c_int::try_from(result).unwrap_or(-1)
}

fn synced(file: c_int, real: impl FnOnce() -> c_long) -> c_int {
    let told = fate_of_file(file, Class::Sync);
    let undo = told.as_ref().and_then(|(shim, _)| shim.undo);
    // Taken before the wait: what is written while a sync hangs is not covered by it.
    let begun = undo.and_then(|directory| Some((directory, undo::begin_sync(directory, file)?)));
    let lies = matches!(told, Some((_, Fate::Lie)));
    let result = whole(Class::Sync, told, real);
    if result == 0
        && !lies
        && let Some((directory, covered)) = begun
    {
        undo::end_sync(directory, covered);
    }
    result
}

/// A write of these buffers at `at`, or where the file stands. `real` is given as many of them as are to be written.
fn written(
    file: c_int,
    buffers: &[iovec],
    at: Option<u64>,
    real: impl Fn(&[iovec]) -> c_long,
) -> ssize_t {
    let wide = |result: c_long| ssize_t::try_from(result).unwrap_or(-1);
    let Some((shim, fate)) = fate_of_file(file, Class::Write) else {
        return wide(real(buffers));
    };
    let len: usize = buffers.iter().map(|buffer| buffer.iov_len).sum();
    let instead = before(shim, Class::Write, fate);
    let keep = |bytes: usize| {
        if let Some(directory) = shim.undo
            && let Some(offset) = at.or_else(|| sys::position(file))
        {
            undo::keep(directory, file, offset, bytes as u64);
        }
    };
    let part = |thousandths| {
        let bytes = rules::kept(len, thousandths);
        keep(bytes);
        let mut left = bytes;
        let some: Vec<iovec> = buffers
            .iter()
            .map(|buffer| {
                let take = buffer.iov_len.min(left);
                left -= take;
                iovec {
                    iov_base: buffer.iov_base,
                    iov_len: take,
                }
            })
            .collect();
        real(&some);
    };
    match instead {
        None => {
            keep(len);
            wide(real(buffers))
        }
        // The file stands where it would, but nothing was written.
        Some(Instead::Success) => {
            if at.is_none() {
                sys::advance(file, len);
            }
            ssize_t::try_from(len).unwrap_or(ssize_t::MAX)
        }
        Some(Instead::Failure(errno)) => sys::fail(errno) as ssize_t,
        Some(Instead::Part(thousandths, errno)) => {
            part(thousandths);
            sys::fail(errno) as ssize_t
        }
        Some(Instead::PartAndDeath(thousandths)) => {
            part(thousandths);
            sys::die() as ssize_t
        }
    }
}

fn one(buffer: *const c_void, len: size_t) -> [iovec; 1] {
    [iovec {
        iov_base: buffer.cast_mut(),
        iov_len: len,
    }]
}

macro_rules! replaced {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)*) => {
        $(
            $(#[$doc])*
            // SAFETY: the name is the C library's, and so are the arguments' types: callers get what they expect.
            #[unsafe(no_mangle)]
            pub(crate) extern "C" fn $name($($argument: $type),*) -> $result $body
        )*
    };
}

replaced! {
    /// fsync(2).
    fn fsync(file: c_int) -> c_int { synced(file, || sys::call(libc::SYS_fsync, [file.into(), 0, 0, 0])) }
    /// fdatasync(2).
    fn fdatasync(file: c_int) -> c_int { synced(file, || sys::call(libc::SYS_fdatasync, [file.into(), 0, 0, 0])) }
    /// syncfs(2).
    fn syncfs(file: c_int) -> c_int { synced(file, || sys::call(libc::SYS_syncfs, [file.into(), 0, 0, 0])) }
    /// sync_file_range(2). It promises no durability, so it ends no unsynced write.
    fn sync_file_range(file: c_int, offset: i64, len: i64, flags: c_uint) -> c_int {
        let told = fate_of_file(file, Class::Sync);
        whole(Class::Sync, told, || sys::call(libc::SYS_sync_file_range, [file.into(), offset, len, flags.into()]))
    }
    /// write(2).
    fn write(file: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
        written(file, &one(buffer, len), None, |some| sys::write_buffer(file, some, None))
    }
    /// pwrite(2).
    fn pwrite(file: c_int, buffer: *const c_void, len: size_t, offset: off_t) -> ssize_t {
        written(file, &one(buffer, len), Some(sys::unsigned(offset)), |some| sys::write_buffer(file, some, Some(offset)))
    }
    /// pwrite(2).
    fn pwrite64(file: c_int, buffer: *const c_void, len: size_t, offset: off_t) -> ssize_t {
        pwrite(file, buffer, len, offset)
    }
    /// writev(2).
    fn writev(file: c_int, buffers: *const iovec, count: c_int) -> ssize_t {
        match sys::buffers(buffers, count) {
            Some(buffers) => written(file, buffers, None, |some| sys::write_buffers(file, some, None)),
            None => sys::fail(libc::EINVAL) as ssize_t,
        }
    }
    /// pwritev(2).
    fn pwritev(file: c_int, buffers: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        match sys::buffers(buffers, count) {
            Some(buffers) => written(file, buffers, Some(sys::unsigned(offset)), |some| sys::write_buffers(file, some, Some(offset))),
            None => sys::fail(libc::EINVAL) as ssize_t,
        }
    }
    /// pwritev(2).
    fn pwritev64(file: c_int, buffers: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        pwritev(file, buffers, count, offset)
    }
    /// ftruncate(2).
    fn ftruncate(file: c_int, len: off_t) -> c_int {
        let told = fate_of_file(file, Class::Change);
        let undo = told.as_ref().and_then(|(shim, _)| shim.undo);
        whole(Class::Change, told, || {
            if let Some(directory) = undo {
                undo::keep_cut(directory, file, sys::unsigned(len));
            }
            sys::call(libc::SYS_ftruncate, [file.into(), len, 0, 0])
        })
    }
    /// ftruncate(2).
    fn ftruncate64(file: c_int, len: off_t) -> c_int { ftruncate(file, len) }
    /// fallocate(2).
    fn fallocate(file: c_int, mode: c_int, offset: off_t, len: off_t) -> c_int {
        let told = fate_of_file(file, Class::Change);
        whole(Class::Change, told, || sys::call(libc::SYS_fallocate, [file.into(), mode.into(), offset, len]))
    }
    /// fallocate(2).
    fn fallocate64(file: c_int, mode: c_int, offset: off_t, len: off_t) -> c_int { fallocate(file, mode, offset, len) }
    /// rename(2).
    fn rename(old: *const c_char, new: *const c_char) -> c_int {
        let here = c_long::from(libc::AT_FDCWD);
        whole(Class::Change, fate_of_path(new), || sys::call(libc::SYS_renameat2, [here, sys::word(old), here, sys::word(new)]))
    }
    /// unlink(2).
    fn unlink(path: *const c_char) -> c_int {
        let here = c_long::from(libc::AT_FDCWD);
        whole(Class::Change, fate_of_path(path), || sys::call(libc::SYS_unlinkat, [here, sys::word(path), 0, 0]))
    }
    /// open(2). The third argument is read only where the flags say there is one; passing it on otherwise is harmless.
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        opened(path, flags, || sys::call(libc::SYS_openat, [libc::AT_FDCWD.into(), sys::word(path), flags.into(), mode.into()]))
    }
    /// open(2).
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { open(path, flags | libc::O_LARGEFILE, mode) }
    /// openat(2); a path relative to a directory passes.
    fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        opened(path, flags, || sys::call(libc::SYS_openat, [directory.into(), sys::word(path), flags.into(), mode.into()]))
    }
    /// openat(2).
    fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        openat(directory, path, flags | libc::O_LARGEFILE, mode)
    }
}

/// Opening for writing is a change; for reading it is none. A lie about it would be a descriptor that is none, so it fails.
fn opened(path: *const c_char, flags: c_int, real: impl FnOnce() -> c_long) -> c_int {
    let writes = flags & (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) != 0;
    let told = if writes { fate_of_path(path) } else { None };
    match told {
        Some((_, Fate::Lie)) => sys::fail(libc::EIO),
        told => whole(Class::Change, told, real),
    }
}

/// System calls with arguments that are sound.
pub(crate) mod sys {
    use super::*;

    /// A system call that takes up to four words.
    pub(super) fn call(number: c_long, [a, b, c, d]: [c_long; 4]) -> c_long {
        // SAFETY: the words are those the process handed to the C library's function of the same call; what the kernel makes
        // of a bad one is the process's own affair, as it would be without this library.
        unsafe { libc::syscall(number, a, b, c, d, 0, 0) }
    }

    pub(super) fn word<T>(pointer: *const T) -> c_long {
        pointer.expose_provenance() as c_long
    }

    /// An offset; a negative one, which the kernel will refuse, is 0.
    pub(super) fn unsigned(offset: off_t) -> u64 {
        u64::try_from(offset).unwrap_or(0)
    }

    pub(super) fn write_buffer(file: c_int, buffers: &[iovec], at: Option<off_t>) -> c_long {
        let Some(buffer) = buffers.first() else {
            return 0;
        };
        let (base, len) = (word(buffer.iov_base), buffer.iov_len as c_long);
        match at {
            None => call(libc::SYS_write, [file.into(), base, len, 0]),
            Some(offset) => call(libc::SYS_pwrite64, [file.into(), base, len, offset]),
        }
    }

    pub(super) fn write_buffers(file: c_int, buffers: &[iovec], at: Option<off_t>) -> c_long {
        let (base, count) = (word(buffers.as_ptr()), buffers.len() as c_long);
        match at {
            None => call(libc::SYS_writev, [file.into(), base, count, 0]),
            // The offset's upper half is a fifth word, which is 0 where words have 64 bits.
            Some(offset) => call(libc::SYS_pwritev, [file.into(), base, count, offset]),
        }
    }

    /// The caller's buffers; `None` where the kernel would refuse their number.
    pub(super) fn buffers<'a>(buffers: *const iovec, count: c_int) -> Option<&'a [iovec]> {
        let count = usize::try_from(count).ok().filter(|n| *n <= BUFFERS_MAX)?;
        if count == 0 || buffers.is_null() {
            return Some(&[]);
        }
        // SAFETY: writev(2) demands an array of `count` buffers, and the caller waits for this call to return.
        Some(unsafe { std::slice::from_raw_parts(buffers, count) })
    }

    /// The caller's path.
    pub(super) fn text<'a>(path: *const c_char) -> Option<&'a [u8]> {
        if path.is_null() {
            return None;
        }
        // SAFETY: every caller's function demands a string with a zero at its end, and waits for this call to return.
        Some(unsafe { CStr::from_ptr(path) }.to_bytes())
    }

    pub(super) fn fail(errno: c_int) -> c_int {
        // SAFETY: the C library gives each thread an errno of its own, valid as long as the thread.
        unsafe { *libc::__errno_location() = errno };
        -1
    }

    /// `kill -9` of this process.
    pub(super) fn die() -> c_int {
        let own = c_long::from(std::process::id());
        call(libc::SYS_kill, [own, libc::SIGKILL.into(), 0, 0]);
        loop {
            sleep(LOOK_NANOS);
        }
    }

    pub(super) fn sleep(nanos: u64) {
        std::thread::sleep(std::time::Duration::from_nanos(nanos));
    }

    /// The path of a descriptor.
    pub(super) fn path_of(file: c_int, buffer: &mut [u8; PATH_MAX]) -> Option<&[u8]> {
        let mut link = [0_u8; 32];
        let mut digits = 0;
        let mut rest = u32::try_from(file).ok()?;
        // Without an allocation: this runs before every write.
        while digits == 0 || rest > 0 {
            digits += 1;
            link[link.len() - 1 - digits] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let begin = link.len() - 1 - digits;
        let directory = b"/proc/self/fd/";
        let at = begin - directory.len();
        link[at..begin].copy_from_slice(directory);
        let here = c_long::from(libc::AT_FDCWD);
        let (name, out) = (word(link[at..].as_ptr()), word(buffer.as_mut_ptr()));
        let len = quietly(|| call(libc::SYS_readlinkat, [here, name, out, PATH_MAX as c_long]));
        buffer.get(..usize::try_from(len).ok()?)
    }

    /// Leaves the process's errno as it was.
    fn quietly<T>(work: impl FnOnce() -> T) -> T {
        // SAFETY: as in `fail`.
        let errno = unsafe { *libc::__errno_location() };
        let result = work();
        fail(errno);
        result
    }

    pub(super) fn map(path: &OsStr) -> Option<&'static Page> {
        let file = open_path(path, libc::O_RDWR)?;
        let (_, size) = inode_and_size(file)?;
        if size < PAGE as u64 {
            close(file);
            return None;
        }
        // SAFETY: no address is asked for, so no existing mapping is touched.
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
        close(file);
        if base == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: a page, page aligned, never unmapped, and every word of it is only reached through atomics.
        Some(unsafe { &*base.cast::<[AtomicU64; PAGE / 8]>() })
    }

    fn open_path(path: &OsStr, flags: c_int) -> Option<c_int> {
        let mut text = path.as_bytes().to_vec();
        text.push(0);
        let (here, name) = (c_long::from(libc::AT_FDCWD), word(text.as_ptr()));
        let flags = c_long::from(flags | libc::O_CLOEXEC);
        let file = quietly(|| call(libc::SYS_openat, [here, name, flags, 0]));
        c_int::try_from(file).ok().filter(|file| *file >= 0)
    }

    pub(super) fn open_directory(path: &OsStr) -> Option<c_int> {
        open_path(path, libc::O_DIRECTORY)
    }

    /// What is kept of an inode, open for reading and writing.
    pub(crate) fn open_in(directory: c_int, inode: u64) -> Option<c_int> {
        let name = format!("{inode}\0");
        let flags = c_long::from(libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC);
        let file = quietly(|| {
            call(
                libc::SYS_openat,
                [directory.into(), word(name.as_ptr()), flags, 0o600],
            )
        });
        c_int::try_from(file).ok().filter(|file| *file >= 0)
    }

    pub(crate) fn close(file: c_int) {
        quietly(|| call(libc::SYS_close, [file.into(), 0, 0, 0]));
    }

    /// Inode and size of a regular file.
    pub(crate) fn inode_and_size(file: c_int) -> Option<(u64, u64)> {
        // SAFETY: all zeros is a value of this plain struct.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        let out = word(&raw mut stat);
        let result = quietly(|| call(libc::SYS_fstat, [file.into(), out, 0, 0]));
        let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        (result == 0 && regular).then(|| (stat.st_ino, unsigned(stat.st_size)))
    }

    /// Where the next write goes.
    pub(super) fn position(file: c_int) -> Option<u64> {
        let flags = quietly(|| call(libc::SYS_fcntl, [file.into(), libc::F_GETFL.into(), 0, 0]));
        if flags & c_long::from(libc::O_APPEND) != 0 {
            return inode_and_size(file).map(|(_, size)| size);
        }
        let at = quietly(|| call(libc::SYS_lseek, [file.into(), 0, libc::SEEK_CUR.into(), 0]));
        u64::try_from(at).ok()
    }

    pub(super) fn advance(file: c_int, bytes: usize) {
        let bytes = c_long::try_from(bytes).unwrap_or(0);
        quietly(|| {
            call(
                libc::SYS_lseek,
                [file.into(), bytes, libc::SEEK_CUR.into(), 0],
            )
        });
    }

    /// Reads from `offset` until `buffer` is full or the file ends. The descriptor may be open for writing only.
    pub(crate) fn read_at(file: c_int, buffer: &mut [u8], offset: u64) -> usize {
        if buffer.is_empty() {
            return 0;
        }
        let path = format!("/proc/self/fd/{file}");
        let Some(again) = open_path(OsStr::new(&path), libc::O_RDONLY) else {
            return 0;
        };
        let mut done = 0;
        while done < buffer.len() {
            let rest = &mut buffer[done..];
            let (base, len) = (word(rest.as_mut_ptr()), rest.len() as c_long);
            let at = c_long::try_from(offset + done as u64).unwrap_or(c_long::MAX);
            match usize::try_from(quietly(|| {
                call(libc::SYS_pread64, [again.into(), base, len, at])
            })) {
                Ok(0) | Err(_) => break,
                Ok(read) => done += read,
            }
        }
        close(again);
        done
    }

    pub(crate) fn write_at(file: c_int, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let (base, len) = (word(rest.as_ptr()), rest.len() as c_long);
            let at = c_long::try_from(offset + done as u64).unwrap_or(c_long::MAX);
            match usize::try_from(quietly(|| {
                call(libc::SYS_pwrite64, [file.into(), base, len, at])
            })) {
                Ok(0) | Err(_) => break,
                Ok(written) => done += written,
            }
        }
    }

    pub(crate) fn cut(file: c_int, len: u64) {
        let len = c_long::try_from(len).unwrap_or(0);
        quietly(|| call(libc::SYS_ftruncate, [file.into(), len, 0, 0]));
    }
}
