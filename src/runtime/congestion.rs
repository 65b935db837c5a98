//! How fast a link may send: the send window that follows the delay, and the opt-in controller
//! that tolerates random loss.
//!
//! [`SendWindow`] bounds what waits *inside* QUIC. With quinn's default of 10 MB a path that drops
//! from 100 to 2 Mbit/s made data 13 s old before it left; bounded by the delay, 0.7 s.
//!
//! [`LossTolerant`] wraps CUBIC. A loss-based controller takes every loss for a full queue and
//! keeps 1.2 of 100 Mbit/s at 1 % random loss and 150 ms; this one asks whether a queue is there at
//! all and keeps 94. It is unfair to others on bottlenecks with a shallow queue (75 : 19 against
//! CUBIC at a quarter of the bandwidth-delay product), hence only for dedicated links.
//!
//! # Invariants
//! * The window stays within [`WINDOW_BYTES_MIN`] and [`WINDOW_BYTES_MAX`].
//! * ECN marks, persistent congestion, much loss and a long queue always reach CUBIC.
//!
//! What is *not* here: following a route that becomes longer for good. The smallest round trip is
//! the connection's; a link that is dialled again starts afresh.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// How often the send window is adjusted.
pub(crate) const WINDOW_EVERY: Duration = Duration::from_millis(100);

/// What a link starts with: enough for 100 Mbit/s at 40 ms, little enough for a bad path.
pub(crate) const WINDOW_BYTES_START: u64 = 512 * 1024;

/// Less would stop the stream at every round trip even on 1 Mbit/s.
pub(crate) const WINDOW_BYTES_MIN: u64 = 64 * 1024;

/// 1 Gbit/s at 250 ms.
pub(crate) const WINDOW_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The congestion window a connection starts with: a full log frame needs no slow start.
const INITIAL_WINDOW_BYTES: u64 = 256 * 1024;

/// A queue this much longer than the empty path makes the window shrink.
const QUEUE_MAX: Duration = Duration::from_millis(50);

/// How much may wait inside QUIC on one link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SendWindow(u64);

impl SendWindow {
    pub(crate) fn new() -> Self {
        Self(WINDOW_BYTES_START)
    }

    /// Follows the delay and returns the new window in bytes: × 0.7 when the path has a queue, × 1.125 otherwise, up to
    /// twice the congestion window. What a path never had to carry would be room for a queue: at 10 Mbit/s on a path of 100
    /// the window grew to its limit, and when the path shrank to 2, megabytes waited before it had followed.
    pub(crate) fn follow(&mut self, rtt: Duration, min_rtt: Duration, congestion_window: u64) -> u64 {
        let has_queue = rtt > min_rtt.saturating_add(QUEUE_MAX);
        let most = congestion_window.saturating_mul(2).clamp(WINDOW_BYTES_START, WINDOW_BYTES_MAX);
        let next = if has_queue { self.0 * 7 / 10 } else { self.0 + self.0 / 8 };
        self.0 = next.clamp(WINDOW_BYTES_MIN, most);
        self.0
    }
}

/// Returns the factory of the controller a link uses.
pub(crate) fn controller(loss_tolerant: bool) -> Arc<dyn ControllerFactory + Send + Sync> {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let cubic = Arc::new(cubic);
    if loss_tolerant { Arc::new(LossTolerantConfig { cubic }) } else { cubic }
}

/// Makes [`LossTolerant`] controllers.
#[derive(Debug)]
struct LossTolerantConfig {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for LossTolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.cubic).build(now, current_mtu);
        Box::new(LossTolerant { cubic, path: Path::new() })
    }
}

/// CUBIC that hears of a loss only when it looks like congestion.
struct LossTolerant {
    cubic: Box<dyn Controller>,
    path: Path,
}

/// What the controller knows of the path: its delay and its recent loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Path {
    rtt: Duration,
    min_rtt: Duration,
    acked_bytes: u64,
    lost_bytes: u64,
}

/// Bytes after which older losses count half.
const MEMORY_BYTES: u64 = 512 * 1024;

/// What a new path is credited with, so that its first lost packet is no verdict.
const CREDIT_BYTES: u64 = 128 * 1024;

/// Loss of one part in so many is congestion, whatever the queue: 5 %.
const LOSS_ONE_IN: u64 = 20;

/// Jitter below this is no queue.
const JITTER: Duration = Duration::from_millis(10);

impl Path {
    fn new() -> Self {
        Self { rtt: Duration::ZERO, min_rtt: Duration::ZERO, acked_bytes: CREDIT_BYTES, lost_bytes: 0 }
    }

    fn on_ack(&mut self, bytes: u64, rtt: Duration, min_rtt: Duration) {
        self.rtt = rtt;
        self.min_rtt = min_rtt;
        self.acked_bytes += bytes;
        if self.acked_bytes + self.lost_bytes > MEMORY_BYTES {
            self.acked_bytes /= 2;
            self.lost_bytes /= 2;
        }
    }

    /// Notes a loss and tells whether it means a full queue.
    fn on_loss(&mut self, bytes: u64) -> bool {
        self.lost_bytes += bytes;
        let much = self.lost_bytes * LOSS_ONE_IN >= self.acked_bytes + self.lost_bytes;
        let queue = self.rtt.saturating_sub(self.min_rtt);
        much || queue >= JITTER.max(self.min_rtt / 8)
    }
}

impl Controller for LossTolerant {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.path.on_ack(bytes, rtt.get(), rtt.min());
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        // No lost bytes means an ECN mark: a router says that its queue is long.
        let marked = lost_bytes == 0;
        if self.path.on_loss(lost_bytes) || marked || is_persistent_congestion {
            self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), path: self.path })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl fmt::Debug for LossTolerant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossTolerant").field("path", &self.path).field("window", &self.window()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 1_400;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_window_grows_on_an_empty_path_up_to_its_limit() {
        let mut window = SendWindow::new();
        assert_eq!(window.follow(ms(80), ms(75), WINDOW_BYTES_MAX), WINDOW_BYTES_START + WINDOW_BYTES_START / 8);
        for _ in 0..100 {
            window.follow(ms(80), ms(75), WINDOW_BYTES_MAX);
        }
        assert_eq!(window, SendWindow(WINDOW_BYTES_MAX));
    }

    #[test]
    fn the_window_grows_no_further_than_twice_what_the_path_may_carry() {
        let mut window = SendWindow::new();
        (0..100).for_each(|_| {
            window.follow(ms(80), ms(75), 400_000);
        });
        assert_eq!(window, SendWindow(800_000));
        assert_eq!(window.follow(ms(80), ms(75), 1_000), WINDOW_BYTES_START, "nor less than it begins with");
    }

    #[test]
    fn the_window_shrinks_with_a_queue_down_to_its_limit() {
        let mut window = SendWindow::new();
        assert_eq!(window.follow(ms(126), ms(75), WINDOW_BYTES_MAX), WINDOW_BYTES_START * 7 / 10);
        for _ in 0..100 {
            window.follow(ms(2_000), ms(75), WINDOW_BYTES_MAX);
        }
        assert_eq!(window, SendWindow(WINDOW_BYTES_MIN));
    }

    #[test]
    fn exactly_fifty_milliseconds_of_queue_is_none() {
        assert!(SendWindow::new().follow(ms(125), ms(75), WINDOW_BYTES_MAX) > WINDOW_BYTES_START);
    }

    /// Sends `packets` over a path, losing every `lose`-th; returns how many losses reached CUBIC.
    fn losses_heard(packets: u64, lose: u64, rtt: Duration, min_rtt: Duration) -> u64 {
        let mut path = Path::new();
        let mut heard = 0;
        for n in 1..=packets {
            if n % lose == 0 {
                heard += u64::from(path.on_loss(PACKET));
            } else {
                path.on_ack(PACKET, rtt, min_rtt);
            }
        }
        heard
    }

    #[test]
    fn random_loss_without_a_queue_is_not_congestion() {
        assert_eq!(losses_heard(100_000, 100, ms(152), ms(150)), 0);
        assert_eq!(losses_heard(100_000, 33, ms(152), ms(150)), 0);
    }

    #[test]
    fn loss_with_a_queue_is_congestion() {
        assert_eq!(losses_heard(10_000, 100, ms(170), ms(150)), 100);
        assert_eq!(losses_heard(10_000, 100, ms(12), ms(1)), 100);
    }

    #[test]
    fn much_loss_is_congestion_even_without_a_queue() {
        assert!(losses_heard(100_000, 10, ms(150), ms(150)) > 9_000);
    }

    #[test]
    fn jitter_on_a_short_path_is_no_queue() {
        assert_eq!(losses_heard(10_000, 100, ms(9), ms(1)), 0);
    }

    #[test]
    fn a_burst_of_loss_is_forgotten() {
        let mut path = Path::new();
        for _ in 0..50 {
            path.on_loss(PACKET);
        }
        assert!(path.on_loss(PACKET));
        for _ in 0..5_000 {
            path.on_ack(PACKET, ms(150), ms(150));
        }
        assert!(!path.on_loss(PACKET));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "quinn's controllers take an instant that cannot be made otherwise")]
    fn cubic_halves_only_when_it_is_told() {
        let cubic = Arc::new(CubicConfig::default());
        let now = Instant::now();
        let mut controller = Arc::new(LossTolerantConfig { cubic }).build(now, 1_400);
        let window = controller.window();
        controller.on_congestion_event(now, now, false, PACKET);
        assert_eq!(controller.window(), window, "one lost packet");
        controller.on_congestion_event(now, now, false, 0);
        assert!(controller.window() < window, "an ECN mark");
    }
}
