//! How far it is, while it runs: a bar on a terminal, nothing elsewhere.
//!
//! # Invariants
//! * Progress goes to standard error, so standard output holds the result and nothing else.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::fleet::Limits;
use crate::tally::Tally;

/// The bar.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(limits: Limits, what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let (bar, template) = if limits.seeds == u64::MAX {
            (ProgressBar::no_length(), "{elapsed:>4} {spinner} {pos} {prefix}  {wide_msg}")
        } else {
            (ProgressBar::new(limits.seeds), "{elapsed:>4} {bar:24} {pos}/{len} {prefix}  {wide_msg}")
        };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(what.to_owned());
        Self(bar)
    }

    pub(crate) fn show(&self, tally: &Tally) {
        self.0.set_position(tally.seeds);
        if let Some(rate) = tally.seeds_per_second_per_core() {
            self.0.set_message(format!("{rate:.0} seeds/s/core, {} failures", tally.failures.len()));
        }
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
