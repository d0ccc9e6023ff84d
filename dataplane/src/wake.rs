//! The eventfd that ends the engine's wait.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Result, read, write};

/// A new waker.
pub(crate) fn waker() -> Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?))
}

/// Ends the present or the next wait. It can only fail when 2^64 - 2 rings are unanswered: then one more says nothing new.
pub(crate) fn ring(waker: &impl AsFd) {
    let _full = write(waker, &1_u64.to_ne_bytes());
}

/// Takes all rings. `false`: there was none.
pub(crate) fn answer(waker: &impl AsFd) -> bool {
    read(waker, &mut [0_u8; 8]).is_ok()
}
