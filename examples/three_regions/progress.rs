//! What is going on, while it goes on: a bar on a terminal, a line per phase elsewhere.
//!
//! # Invariants
//! * Progress goes to standard error, so standard output holds the result and nothing else.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// The bar; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    /// Begins with `writes` ahead.
    pub(crate) fn new(writes: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(writes) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos:>6}/{len} writes  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, terminal }
    }

    /// Counts one write.
    pub(crate) fn wrote(&self) {
        self.bar.inc(1);
    }

    /// Says what happens now.
    pub(crate) fn phase(&self, what: &str) {
        if self.terminal {
            self.bar.set_message(what.to_owned());
        } else {
            // Where standard error is closed there is nobody to be told.
            drop(writeln!(std::io::stderr(), "... {what}"));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
