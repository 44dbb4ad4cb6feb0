//! What is on its way and not acknowledged: which packet identifier stands for which message, and up to where a stream is
//! through without a gap. Only that is told to the queue, so that after an interruption nothing is left out.

use std::collections::VecDeque;

use crate::queue::Stream;

/// One message on its way.
#[derive(Debug)]
struct Sent {
    stream: Stream,
    seq: u64,
    /// Given by the client library when it writes the packet; messages are numbered in the order they were handed over.
    pkid: Option<u16>,
    acknowledged: bool,
    bytes: usize,
}

/// The messages on their way, in the order they were handed over.
#[derive(Debug, Default)]
pub struct Window {
    sent: VecDeque<Sent>,
    bytes: usize,
}

impl Window {
    /// How many are on their way or wait for an earlier one of their stream.
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Bytes on their way.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A message of so many bytes has been handed over.
    pub fn sent(&mut self, stream: Stream, seq: u64, bytes: usize) {
        self.bytes += bytes;
        self.sent.push_back(Sent { stream, seq, pkid: None, acknowledged: false, bytes });
    }

    /// A PUBLISH with this identifier has been written: it is the first one that had none. False when there is none such.
    pub fn numbered(&mut self, pkid: u16) -> bool {
        let next = self.sent.iter_mut().find(|s| s.pkid.is_none());
        next.map(|s| s.pkid = Some(pkid)).is_some()
    }

    /// A PUBACK has come. Returns the stream and the number up to which it is now through, when that has moved.
    pub fn acknowledged(&mut self, pkid: u16) -> Option<(Stream, u64)> {
        let found = self.sent.iter_mut().find(|s| s.pkid == Some(pkid) && !s.acknowledged)?;
        found.acknowledged = true;
        self.bytes -= found.bytes;
        let stream = found.stream;
        let mut through = None;
        let mut open = false;
        self.sent.retain(|s| {
            if s.stream != stream || open {
                return true;
            }
            if s.acknowledged {
                through = Some(s.seq);
            } else {
                open = true;
            }
            !s.acknowledged
        });
        through.map(|seq| (stream, seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_through_without_a_gap_is_told() {
        let mut window = Window::default();
        for (stream, seq) in [(Stream::Data, 7), (Stream::Data, 8), (Stream::Replies, 1), (Stream::Data, 9)] {
            window.sent(stream, seq, 10);
        }
        for pkid in [1, 2, 3] {
            assert!(window.numbered(pkid));
        }
        assert_eq!(window.acknowledged(2), None);
        assert_eq!(window.acknowledged(4), None, "not written yet");
        assert_eq!(window.acknowledged(3), Some((Stream::Replies, 1)));
        assert_eq!(window.acknowledged(1), Some((Stream::Data, 8)));
        assert_eq!(window.acknowledged(1), None, "a second time");
        assert!(window.numbered(1) && !window.numbered(2));
        assert_eq!(window.acknowledged(1), Some((Stream::Data, 9)));
        assert!(window.is_empty() && window.bytes() == 0);
    }

    proptest! {
        /// In whatever order acknowledgements come, what is told never runs ahead of one that is missing.
        #[test]
        fn never_ahead_of_a_gap(order in Just((1..=12u16).collect::<Vec<_>>()).prop_shuffle(), cut in 0..=12usize) {
            let mut window = Window::default();
            for pkid in 1..=12u16 {
                window.sent(Stream::ALL[usize::from(pkid % 3)], u64::from(pkid), 10);
                window.numbered(pkid);
            }
            let mut through = [0u64; 3];
            for pkid in &order[..cut] {
                if let Some((stream, seq)) = window.acknowledged(*pkid) {
                    prop_assert!(seq > through[stream as usize]);
                    through[stream as usize] = seq;
                }
            }
            for missing in &order[cut..] {
                prop_assert!(through[usize::from(missing % 3)] < u64::from(*missing));
            }
            prop_assert_eq!(window.is_empty(), cut == 12);
        }
    }
}
