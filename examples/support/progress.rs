//! The progress bar of the measurements in virtual time.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// Returns a bar of so many of what is counted, or a hidden one where nobody looks.
pub(crate) fn progress(total: u64, counted: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    let style =
        ProgressStyle::with_template(&format!("{{elapsed:>4}} {{bar:24}} {{pos}}/{{len}} {counted}, {{eta}} to go"));
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
