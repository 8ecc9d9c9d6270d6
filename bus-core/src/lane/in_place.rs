//! Payloads that are read where they lie, in memory that their sender may write to.
//!
//! The one way to have a slice of a ring that another process writes: it cannot be safe, so it is said here what has
//! to hold.
#![expect(unsafe_code, reason = "bytes in a ring that another process writes")]

use std::slice;

use super::layout::{PAGE_BYTES, WORD_BYTES};
use super::memory::Memory;
use super::region::Map;
use super::ring::{Reader, Record};
use crate::receiver::{InPlaceDelivery, Lying};

impl<C: Memory> Reader<Map, C> {
    /// The payload of a message, where it lies.
    ///
    /// # Safety
    /// As for [`InPlaceDelivery::payload_in_place`], for as long as the slice is used.
    #[must_use]
    pub unsafe fn payload_in_place(&self, record: &Record) -> &[u8] {
        let bytes = record.header.payload_bytes as usize;
        let word = (PAGE_BYTES + record.payload_place() as usize) / WORD_BYTES;
        let from = self.data().pointer(word, bytes);
        // SAFETY: within the map, which lives as long as `self`. That nobody writes there is for the caller to know.
        unsafe { slice::from_raw_parts(from.as_ptr(), bytes) }
    }
}

impl InPlaceDelivery<'_> {
    /// The payload, where it lies: in a lane, memory that its sender writes to.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("pictures").open()?;
    /// # bus.raw_sender("pictures").open()?.send(b"abc".to_vec())?;
    /// let message = receiver.next_in_place(None)?;
    /// // SAFETY: the sender is a program of ours that does nothing with its lane but what this library does.
    /// let payload = unsafe { message.payload_in_place() };
    /// assert_eq!(payload, b"abc");
    /// message.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    /// Until the slice is used no more, the process that sent the message must not write to these bytes. One that
    /// sends by this library does not before the message is acknowledged or given back, and neither can be while the
    /// slice is borrowed, *unless* it turns to another receiver meanwhile: because this one was kicked, was so long
    /// stopped that it counts as dead, or has lost its daemon. So the caller knows that the sender is a program of
    /// this library which it trusts with its own memory, and that nobody gives the seat away while it reads. Where
    /// that is not known, [`to_vec`](Self::to_vec) and [`Receiver::next_bytes`](crate::Receiver::next_bytes) copy
    /// once, and are safe against anybody.
    #[must_use]
    pub unsafe fn payload_in_place(&self) -> &[u8] {
        match self.lying() {
            // SAFETY: by the caller.
            Lying::InRing(reader, record) => unsafe { reader.payload_in_place(record) },
            Lying::Here(payload) => payload,
        }
    }
}
