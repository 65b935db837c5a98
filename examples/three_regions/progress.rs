//! What is going on, while it goes on: a bar on a terminal, a line per phase elsewhere.
//!
//! # Invariants
//! * Progress goes to standard error, so standard output holds the result and nothing else.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// The bar; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    begun: Instant,
}

impl Progress {
    /// Begins with `writes` ahead.
    pub(crate) fn new(writes: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(writes) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{elapsed:>4} {bar:16} {percent:>3} %  {wide_msg}");
        // Phases in which nothing is written are seen to be alive by their clock.
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, terminal, begun: Instant::now() }
    }

    /// Counts one operation that writes.
    pub(crate) fn wrote(&self) {
        self.bar.inc(1);
    }

    /// Says what happens now.
    pub(crate) fn phase(&self, what: &str) {
        if self.terminal {
            self.bar.set_message(what.to_owned());
        } else {
            // Where standard error is closed there is nobody to be told.
            drop(writeln!(std::io::stderr(), "{:5.1} s  {what}", self.begun.elapsed().as_secs_f64()));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
