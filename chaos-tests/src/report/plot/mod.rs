//! Plots as SVG: strips, bars, lanes over time, densities over time. Each is one self-contained `<svg>` that stands alone in a file
//! or inside a page, in light and dark, with the data of each mark in its `<title>` for those who hover.
//!
//! Colours are those of Okabe & Ito (2008), which people with any colour vision tell apart; nothing is told by colour alone.
//! Labels are written where the data is, and never over each other.
//!
//! Pure: data in, text out. It knows nothing of histories.

mod bars;
mod density;
mod lanes;
mod scale;
mod strip;
mod svg;

pub use bars::{Bar, Bars, bars};
pub use density::{Density, Sample, density};
pub use lanes::{Lane, LaneGroup, Lanes, Mark, Shade, Span, lanes};
pub use scale::Unit;
pub use strip::{Group, Strip, strip};
pub use svg::{Colour, escape};

/// Width of every plot, in pixels.
pub const WIDTH: f64 = 1100.0;
