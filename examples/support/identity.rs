//! Who the nodes are: a certificate authority for this run, and a directory for each node.
//!
//! # Invariants
//! * A node is issued one certificate, so it keeps its identity when it is started again.
//! * The directory is removed when the run ends; the authority's key is never written to it.

use std::error::Error;
use std::path::{Path, PathBuf};

use driftless::id::{NodeId, RegionId};
use driftless::runtime::uri_of;
use uuid::Uuid;

use crate::dev_ca::{DevCa, Leaf};

/// The identities of one run.
#[derive(Debug)]
pub(crate) struct Identities {
    dir: PathBuf,
}

impl Identities {
    /// Makes a fresh authority, and in a fresh directory of this demo what each node needs: its name, its region and its
    /// identity.
    pub(crate) fn issue(demo: &str, nodes: &[(String, &str, NodeId)]) -> Result<Self, Box<dyn Error>> {
        let dir = std::env::temp_dir().join(format!("driftless-{demo}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        // From here on the directory is removed whatever happens.
        let identities = Self { dir };
        let authority = DevCa::new()?;
        for (name, region, node) in nodes {
            let pem = authority.issue(&Leaf::new(uri_of(&RegionId::new(region), *node)))?;
            let dir = identities.of(name);
            pem.write(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        Ok(identities)
    }

    /// Returns the directory with a node's certificate and key.
    pub(crate) fn of(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns a file in the directory of this run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Returns a fresh identity.
pub(crate) fn fresh_node() -> NodeId {
    NodeId(Uuid::from_u128(fastrand::u128(..)))
}

impl Drop for Identities {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary files.
        drop(std::fs::remove_dir_all(Path::new(&self.dir)));
    }
}
