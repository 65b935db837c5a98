//! Blocks that are, or claim to be, compressed by zstd.
//!
//! # Invariants
//! * Made from bytes: what zstd compressed (then damaged, or given another length), or any bytes.
//! * As on a link, zstd's contexts are reused: to make one takes longer than all the rest.

use arbitrary::Arbitrary;
use zstd::bulk::Compressor;

/// How a block is made.
#[derive(Arbitrary, Debug)]
pub enum Block<'a> {
    /// Of any bytes.
    Any {
        /// The length that is declared.
        length: u32,
        /// Its bytes.
        block: &'a [u8],
    },
    /// By zstd.
    Made {
        /// Chooses the level.
        level: u8,
        /// How often what is compressed repeats.
        times: u8,
        /// A byte that is changed afterwards.
        damage: Option<(u16, u8)>,
        /// How far what is declared is from the truth.
        longer: i8,
        /// What is repeated.
        plain: &'a [u8],
    },
}

/// A block as it is sent.
#[derive(Debug)]
pub struct Packed {
    /// The length that is declared.
    pub length: u32,
    /// The block.
    pub block: Vec<u8>,
    /// What it is known to hold.
    pub known: Option<Vec<u8>>,
}

impl Block<'_> {
    /// Makes it.
    ///
    /// # Panics
    /// Never: a compressor compresses anything.
    #[must_use]
    pub fn pack(self, packer: &mut Compressor<'_>) -> Packed {
        match self {
            Self::Any { length, block } => Packed { length, block: block.to_vec(), known: None },
            Self::Made { level, times, damage, longer, plain } => {
                let plain = plain.repeat(usize::from(times) + 1);
                packer.set_compression_level(i32::from(level % 4) - 1).expect("levels from -1 to 2 exist");
                let mut block = packer.compress(&plain).expect("there is room");
                let length = u32::try_from(plain.len()).unwrap_or(u32::MAX).saturating_add_signed(i32::from(longer));
                if let Some((at, with)) = damage {
                    let at = usize::from(at) % block.len();
                    block[at] ^= with;
                }
                let honest = damage.is_none_or(|(_, with)| with == 0) && longer == 0;
                Packed { length, block, known: honest.then_some(plain) }
            }
        }
    }
}
