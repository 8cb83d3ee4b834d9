//! Plots as SVG: bars for the figures of a report, lines for a run over time.
//!
//! Written by hand because a figure of bars is some forty elements, and a plotting library lays out
//! axes that nobody needs here.

mod bars;
mod lines;
mod storm;
mod svg;

pub use bars::figure;
pub use lines::{Line, Panel, panels};
pub use storm::{Storm, storm};
