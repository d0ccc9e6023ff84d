//! `clusterserver.conf`: the configuration file of TurboLinux Cluster Server 6, with extensions that keep old files valid.
//!
//! [`check`] reads a file, [`print()`] writes one: `check(print(config)).config == Some(config)`. What only addresses
//! can tell, once host names have them, is left to [`Config::problems`]. `docs/CONFIGURATION.md` is the reference
//! for people.

mod bounds;
mod check;
mod code;
mod diagnostic;
mod findings;
mod keywords;
mod lex;
mod nat;
mod on_atm;
mod parse;
mod places;
mod print;
mod references;
mod render;
mod resolve;
mod types;
mod values;

pub use bounds::*;
pub use check::{Checked, check, check_bytes};
pub use code::Code;
pub use diagnostic::{Diagnostic, Finding, Related, Severity};
pub use keywords::{keywords, options};
pub use lex::{FILE_BYTES_MAX, LINE_BYTES_MAX};
pub use nat::{Nat, Network6};
pub use places::{Places, Subject};
pub use print::print;
pub use render::render;
pub use resolve::Problem;
pub use types::*;
pub use values::{NAME_BYTES_MAX, PATH_BYTES_MAX};
