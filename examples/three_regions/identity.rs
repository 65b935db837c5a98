//! Who the regions are: a certificate authority for this run, and a directory for each region.
//!
//! # Invariants
//! * The directory is removed when the run ends; the authority's key is never written to it.

use std::error::Error;
use std::path::{Path, PathBuf};

/// The identities of one run.
#[derive(Debug)]
pub(crate) struct Identities {
    dir: PathBuf,
}

impl Identities {
    /// Makes a fresh directory.
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let dir = std::env::temp_dir().join(format!("driftless-three-regions-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Issues a certificate for a region's only node and returns the directory it is in.
    pub(crate) fn issue(&self, region: &str) -> Result<PathBuf, Box<dyn Error>> {
        let dir = self.dir.join(region);
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(dir)
    }

    /// Returns a file in the directory of this run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Identities {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary files.
        drop(std::fs::remove_dir_all(Path::new(&self.dir)));
    }
}
