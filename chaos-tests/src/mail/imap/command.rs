//! What a client can ask for (RFC 3501 §6).

use super::super::flags::Flags;
use super::cursor::Set;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Capability,
    Noop,
    Logout,
    Login {
        user: String,
    },
    /// A command of the RFC that this server does not offer.
    NotOffered,
    Account(Account),
    Selected(Action),
}

/// What can be asked for after LOGIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Account {
    Select {
        name: Vec<u8>,
        read_only: bool,
    },
    List {
        answer: &'static str,
        pattern: Vec<u8>,
    },
    Status {
        name: Vec<u8>,
        items: Vec<StatusItem>,
    },
    Subscribe {
        name: Vec<u8>,
    },
}

/// What can be asked for after SELECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Check,
    Close {
        expunge: bool,
    },
    Expunge,
    Idle,
    Fetch {
        uid: bool,
        set: Set,
        items: Vec<Item>,
    },
    Store {
        uid: bool,
        set: Set,
        change: Change,
        silent: bool,
        flags: Flags,
    },
    Search {
        uid: bool,
        key: Key,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Replace,
    Add,
    Remove,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Flags,
    Uid,
    InternalDate,
    Size,
    Envelope,
    Section(Section),
}

/// A piece of the mail's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// How the answer names it.
    pub(super) label: String,
    pub(super) part: Part,
    /// Reading it does not set `\Seen`.
    pub(super) peek: bool,
    /// First byte and number of bytes.
    pub(super) partial: Option<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Header,
    Text,
    /// The named header fields, or all but these.
    Fields {
        names: Vec<String>,
        except: bool,
    },
}

/// A condition of SEARCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    All(Vec<Key>),
    Either(Box<Key>, Box<Key>),
    Not(Box<Key>),
    Has(Flags),
    Recent,
    Numbers(Set),
    Uids(Set),
    Header {
        name: String,
        text: Vec<u8>,
    },
    Body(Vec<u8>),
    Text(Vec<u8>),
    Larger(u32),
    Smaller(u32),
    /// By arrival: the day number since the epoch.
    Before(u64),
    On(u64),
    Since(u64),
}
