//! Writes the golden bytes of samples that have none yet: `cargo run --example golden`.
//!
//! Bytes that exist are never written again: a difference is for `tests/wire_compat.rs` to report
//! and for a person to decide.

#[path = "../support/samples.rs"]
mod samples;

use driftless::wire::Encoder;
use samples::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut encoder = Encoder::default();
    for (name, message) in samples::samples() {
        let path = samples::path(name);
        if path.exists() {
            continue;
        }
        let bytes = match &message {
            Message::Frame(frame) => encoder.encode_frame(frame, &samples::spaces())?,
            Message::Control(control) => encoder.encode_control(control)?,
            Message::Beat(beat) => encoder.encode_beat(beat),
        };
        std::fs::write(&path, &bytes)?;
        eprintln!("{}: {} bytes", path.display(), bytes.len());
    }
    Ok(())
}
