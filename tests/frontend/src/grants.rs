// SPDX-License-Identifier: GPL-2.0

//! Pages that another domain may map.

use std::fs::File;
use std::rc::Rc;

use anyhow::Result;

use crate::sys;
use crate::sys::Shared;

/// The domain of the backend.
pub const DOM0: u16 = 0;

/// Where granted pages come from.
#[derive(Clone)]
pub struct Grants {
    file: Rc<File>,
}

impl Grants {
    pub fn open() -> Result<Self> {
        let file = Rc::new(sys::open("/dev/xen/gntalloc")?);
        Ok(Grants { file })
    }

    /// Pages that the backend may read and write.
    pub fn pages(&self, count: usize) -> Result<Pages> {
        self.pages_for(DOM0, true, count)
    }

    pub fn pages_for(&self, domid: u16, writable: bool, count: usize) -> Result<Pages> {
        let (index, grefs) = sys::grant(&self.file, domid, writable, count)?;
        Ok(Pages {
            memory: Some(Shared::map(&self.file, index, count)?),
            file: self.file.clone(),
            index,
            grefs,
        })
    }
}

/// Granted pages, one beside the other. Dropping them revokes the grants.
pub struct Pages {
    memory: Option<Shared>,
    file: Rc<File>,
    index: u64,
    pub grefs: Vec<u32>,
}

impl Pages {
    pub fn memory(&self) -> &Shared {
        self.memory.as_ref().expect("only taken by drop")
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // The mapping keeps pages in use: first.
        self.memory = None;
        // Cannot fail for what was granted; the grants end with the process anyway.
        let _ = sys::revoke(&self.file, self.index, self.grefs.len());
    }
}
