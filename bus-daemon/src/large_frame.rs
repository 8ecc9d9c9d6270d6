//! [`LargeFrame`]: a frame whose content is large, on its way in.
//!
//! It is read straight into the memory in which it will be kept. With the end of one the beginning of
//! the next is read, so that a flow of them costs one system call each.

use std::io::{self, IoSliceMut};

use bus_core::wire::{FrameHeader, HEADER_BYTES};

use crate::broker::PREFIX_BYTES;
use crate::connection::Stream;

/// A large frame that is being read, or waits for room.
pub(crate) struct LargeFrame {
    pub(crate) header: FrameHeader,
    pub(crate) content: LargeContent,
}

pub(crate) enum LargeContent {
    Kept {
        /// [`PREFIX_BYTES`] of room, then the content.
        record: Vec<u8>,
        /// How much of the record has come.
        filled: usize,
    },
    /// Nobody needs it; so much has not come yet.
    Skipped { missing: usize },
}

impl LargeFrame {
    /// A frame that is read into `record`, which is as long as what is to be kept.
    pub(crate) fn keep(header: FrameHeader, begun: &[u8], mut record: Vec<u8>) -> Self {
        let filled = PREFIX_BYTES + begun.len();
        record[PREFIX_BYTES..filled].copy_from_slice(begun);
        Self { header, content: LargeContent::Kept { record, filled } }
    }

    pub(crate) fn skip(header: FrameHeader, begun: &[u8]) -> Self {
        let missing = header.frame_bytes() - HEADER_BYTES - begun.len();
        Self { header, content: LargeContent::Skipped { missing } }
    }

    /// How long the record of a frame is.
    pub(crate) fn record_bytes(header: &FrameHeader) -> usize {
        PREFIX_BYTES + header.frame_bytes() - HEADER_BYTES
    }

    pub(crate) fn missing(&self) -> usize {
        match &self.content {
            LargeContent::Kept { record, filled } => record.len() - filled,
            LargeContent::Skipped { missing } => *missing,
        }
    }

    /// How much of it has come, header included.
    pub(crate) fn received_bytes(&self) -> usize {
        self.header.frame_bytes() - self.missing()
    }

    pub(crate) fn held_bytes(&self) -> usize {
        match &self.content {
            LargeContent::Kept { record, .. } => record.len(),
            LargeContent::Skipped { .. } => 0,
        }
    }

    /// Reads more of it, and with its end what follows, into `beyond`. Returns how much that is, and how
    /// much was asked for. `discarded` is memory for what nobody needs.
    pub(crate) fn receive(&mut self, stream: &Stream, discarded: &mut [u8], beyond: usize) -> io::Result<Received> {
        match &mut self.content {
            LargeContent::Kept { record, filled } => {
                let missing = record.len() - *filled;
                let slices = &mut [IoSliceMut::new(&mut record[*filled..]), IoSliceMut::new(&mut discarded[..beyond])];
                let bytes = stream.receive_vectored(if beyond > 0 { slices } else { &mut slices[..1] })?;
                *filled += bytes.min(missing);
                Ok(Received { bytes, asked: missing + beyond, beyond: bytes.saturating_sub(missing) })
            }
            LargeContent::Skipped { missing } => {
                let asked = discarded.len().min(*missing);
                let bytes = stream.receive(&mut discarded[..asked])?;
                *missing -= bytes;
                Ok(Received { bytes, asked, beyond: 0 })
            }
        }
    }
}

/// What a reading brought.
pub(crate) struct Received {
    pub(crate) bytes: usize,
    pub(crate) asked: usize,
    /// So many of the bytes are not of this frame any more.
    pub(crate) beyond: usize,
}
