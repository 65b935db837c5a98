//! How QUIC behaves on every link, and how much of it strangers may have.
//!
//! # Invariants
//! * Nothing here is tied to a socket or a runtime: the shell and the simulator speak the same QUIC.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, ServerConfig, TransportConfig, VarInt};

use crate::runtime::congestion::{WINDOW_BYTES_START, controller};

/// How long one dial may take per address.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Handshakes going on at once.
pub(crate) const HANDSHAKES: usize = 256;

/// With fewer handshakes free than this, an unproven address must first answer a retry.
pub(crate) const HANDSHAKES_FREE_MIN: usize = 192;

/// How long an accepted handshake may take: several round trips of the worst path, with losses.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long shutting down waits for closed connections to drain.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// Bytes kept of all connections whose handshake has not begun.
const INCOMING_BYTES: u64 = 4 * 1024 * 1024;

/// What one stream of a peer may have in flight: 1 Gbit/s at 190 ms. quinn gives a connection up
/// when a stream has too many gaps, which larger windows make possible.
const STREAM_WINDOW_BYTES: u32 = 24 * 1024 * 1024;

/// What all streams of a peer may have in flight.
const LINK_WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// Bidirectional streams a peer may have open; it needs one.
const STREAMS: u32 = 64;

/// Log streams a peer may have open: one long one, and an express one per frame until its credit is
/// back a round trip later. 500 frames a second (one per linger) on a path of 220 ms take 110, and
/// those that wait for a repetition twice that. A frame without credit goes to the long stream,
/// where a lost packet delays all behind it: with 64 the demo at 1,850 writes a second had a p99 of
/// 31 ms above the path, with 256 of 6 ms. quinn allocates for all of them: 62 KiB a link.
const EXPRESS_STREAMS: u32 = 256;

/// Silence that ends a link. Detecting failures is the beats' work, not this timeout's.
const IDLE_MS: u32 = 10_000;

/// Keeps the path open when the node has nothing to say, and finds out what got lost while it has nothing else to send.
/// Beats are sent more often, so a link in use pays nothing for it. A dial needs it: quinn forgets its back-off only once
/// an acknowledgement comes, so a hello that overtook the end of its handshake, and was dropped, was repeated after 5 s
/// on a path of 300 ms; by then the link counts as silent. With 2 s a pair of nodes never got past it.
const KEEP_ALIVE: Duration = Duration::from_millis(250);

/// The round trip assumed of an unknown path. The first packet of a dial is repeated after three
/// of these, then six more, so that one lost to a cut that has just healed costs little. The last
/// repetition must leave a long path time for the handshake within the dial's timeout of a second;
/// with 100 ms it did not, and a heal took up to 0.8 s longer.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// Old beats are worthless: with the default of 1 MiB they queue for seconds on a bad path.
const BEATS_OUT_BYTES: usize = 16 * 1024;
const BEATS_IN_BYTES: usize = 64 * 1024;

/// Returns how QUIC behaves on every link; the reasons are at the constants.
pub(crate) fn transport(segmentation_offload: bool, loss_tolerant: bool) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(LINK_WINDOW_BYTES))
        .send_window(WINDOW_BYTES_START)
        .max_concurrent_uni_streams(VarInt::from_u32(EXPRESS_STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .datagram_send_buffer_size(BEATS_OUT_BYTES)
        .datagram_receive_buffer_size(Some(BEATS_IN_BYTES))
        .enable_segmentation_offload(segmentation_offload)
        .congestion_controller_factory(controller(loss_tolerant));
    transport
}

/// Bounds what strangers who knock may take: so many at once, so many bytes of them all.
pub(crate) fn bound_strangers(server: &mut ServerConfig, transport: Arc<TransportConfig>) {
    server.transport_config(transport);
    server.max_incoming(HANDSHAKES).incoming_buffer_size_total(INCOMING_BYTES);
}
