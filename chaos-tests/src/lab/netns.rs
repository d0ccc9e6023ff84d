//! Running Rust code inside a host's network namespace.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::LabError;

/// Runs `work` on a thread that has entered the network namespace called `namespace`.
///
/// Sockets opened by `work` stay in that namespace wherever they are used afterwards. Panics of `work` go on in the caller.
///
/// # Errors
/// [`LabError::Io`] if the namespace cannot be entered; `work` has then not run.
pub fn in_namespace<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> T + Send,
) -> Result<T, LabError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace)?;
            Ok(work())
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread for good.
///
/// # Errors
/// [`LabError::Io`] if the namespace does not exist or may not be entered.
pub(crate) fn enter(namespace: &str) -> Result<(), LabError> {
    let path = Path::new("/run/netns").join(namespace);
    let file = File::open(&path).map_err(LabError::io(format!("open {}", path.display())))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| LabError::io(format!("enter the network namespace {namespace}"))(e.into()))
}
