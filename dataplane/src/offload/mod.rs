//! What the kernel checks for us, where it can.

mod egress_gate;

pub(crate) use egress_gate::{EgressGate, VOICE_MARK};
