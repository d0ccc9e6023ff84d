//! What holds of the replicated state, whatever is committed (P4, P6, P7, P8), and of its stored forms, whatever is read (P9).

mod applied;
mod pinned;
mod script;
mod stored;
