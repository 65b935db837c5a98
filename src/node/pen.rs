//! Where frames wait for the wall clock to come near their stamps.
//!
//! # Invariants
//! * A link holds at most [`PEN_BYTES_MAX`], every frame counting [`FRAME_COST`] more than its bytes; what is over is
//!   dropped and stays missing until it is sent again.
//! * A frame waits as a copy: the buffer it came in may be a hundred times as large.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::node::input::LinkId;
use crate::node::link::FRAME_COST;
use crate::probe::sometimes;

/// Bytes of frames of one link that may wait for the wall clock, for at most ten drift bounds.
pub(super) const PEN_BYTES_MAX: usize = 1 << 20;

/// A frame and when it may go.
#[derive(Debug)]
struct Penned {
    at_ms: u64,
    link: LinkId,
    frame: Bytes,
}

/// The frames that wait.
#[derive(Debug, Default)]
pub(super) struct Pen {
    frames: VecDeque<Penned>,
    /// Bytes held of each link.
    held: BTreeMap<LinkId, usize>,
}

impl Pen {
    /// Keeps a frame until `at_ms` if there is room.
    pub(super) fn keep(&mut self, at_ms: u64, link: LinkId, frame: &Bytes) {
        let held = self.held.entry(link).or_default();
        let with = *held + frame.len() + FRAME_COST;
        sometimes!(PenFull, if with > PEN_BYTES_MAX);
        if with <= PEN_BYTES_MAX {
            sometimes!(FramePenned);
            *held = with;
            self.frames.push_back(Penned { at_ms, link, frame: Bytes::copy_from_slice(frame) });
        }
    }

    /// Takes the frames out whose time has come, in the order in which they came.
    pub(super) fn release(&mut self, wall_ms: u64) -> Vec<(LinkId, Bytes)> {
        let mut free = Vec::new();
        self.frames.retain_mut(|p| {
            if p.at_ms <= wall_ms {
                free.push((p.link, std::mem::take(&mut p.frame)));
            }
            p.at_ms > wall_ms
        });
        for (link, frame) in &free {
            sometimes!(PenReleased);
            if let Some(held) = self.held.get_mut(link) {
                *held -= frame.len() + FRAME_COST;
            }
        }
        free
    }

    /// Forgets what a link has sent.
    pub(super) fn forget(&mut self, link: LinkId) {
        sometimes!(PenEmptiedWithLink, if self.frames.iter().any(|p| p.link == link));
        self.frames.retain(|p| p.link != link);
        self.held.remove(&link);
    }

    /// Returns the bytes held of the link that has the most.
    pub(super) fn largest(&self) -> usize {
        self.held.values().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_its_share_and_no_more_however_small_its_frames_are() {
        let mut pen = Pen::default();
        for _ in 0..PEN_BYTES_MAX {
            pen.keep(10, LinkId(1), &Bytes::from_static(b""));
        }
        assert!(pen.frames.len() <= PEN_BYTES_MAX / FRAME_COST && pen.largest() <= PEN_BYTES_MAX);
        pen.keep(5, LinkId(2), &Bytes::from_static(b"another link has room"));
        assert_eq!(pen.release(5), [(LinkId(2), Bytes::from_static(b"another link has room"))]);
        pen.forget(LinkId(1));
        assert_eq!((pen.frames.len(), pen.largest()), (0, 0));
    }

    #[test]
    fn a_frame_does_not_hold_on_to_the_buffer_it_came_in() {
        let buffer = Bytes::from(vec![7; 64 * 1024]);
        let mut pen = Pen::default();
        pen.keep(1, LinkId(1), &buffer.slice(..10));
        assert!(buffer.is_unique());
        assert_eq!(pen.release(1).first().map(|(_, frame)| frame.len()), Some(10));
        assert_eq!(pen.largest(), 0);
    }
}
