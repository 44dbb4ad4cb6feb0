//! What goes up next: from the queue, stream by stream, each in its order.
//!
//! The more urgent streams always go first (answers, then events, then data), and some of the window is kept free for them,
//! so that a backlog of data never delays an answer. Old data is brought up at a limited rate, so that it does not fill the
//! link; inside a stream the order is kept whatever happens, so new data follows the old.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use edge_model::envelope::Up;
use edge_model::topic::CloudTopic;

use super::Counters;
use crate::queue::{Entry, Queue, QueueError, Stream};

/// Messages read from the queue at once: a few writes to the socket, and little memory.
const BATCH: usize = 32;
/// Data older than this is a backlog and subject to the rate.
const OLD: Duration = Duration::from_secs(10);
/// Characters of a subject in a message for people.
const SHOWN: usize = 80;
/// The longest a drain may have saved up for a burst.
const BURST: Duration = Duration::from_millis(100);

/// One message, ready to be published.
#[derive(Debug)]
pub struct Ready {
    /// Its stream.
    pub stream: Stream,
    /// Its number.
    pub seq: u64,
    /// The topic in the cloud.
    pub topic: String,
    /// The envelope.
    pub body: Vec<u8>,
}

/// What there is to send.
#[derive(Debug)]
pub enum Next {
    /// This.
    Send(Ready),
    /// Nothing until this moment (the rate), or until something changes.
    Wait(Option<Instant>),
}

struct Lane {
    stream: Stream,
    /// The number of the last message read.
    read: u64,
    buffer: VecDeque<Entry>,
    /// The queue had no more when it was last asked.
    dry: bool,
}

/// The sending side of one connection.
pub struct Feed<'a> {
    queue: &'a Queue,
    base: &'a str,
    node: &'a str,
    message_max: usize,
    window: usize,
    lanes: [Lane; 3],
    pace: Pace,
}

impl<'a> Feed<'a> {
    /// Starts where the far side's last acknowledgement was.
    pub fn new(queue: &'a Queue, base: &'a str, settings: &'a super::Settings) -> Feed<'a> {
        let lane = |stream| Lane { stream, read: queue.acked(stream), buffer: VecDeque::new(), dry: false };
        Feed {
            queue,
            base,
            node: &settings.node,
            message_max: settings.message_max_bytes,
            window: settings.window.into(),
            lanes: Stream::ALL.map(lane),
            pace: Pace { rate: settings.drain_rate, next: Instant::now() },
        }
    }

    /// Something may have been pushed.
    pub fn changed(&mut self) {
        for lane in &mut self.lanes {
            lane.dry = false;
        }
    }

    /// The next message when `in_flight` are on their way.
    ///
    /// # Errors
    /// The queue cannot be read.
    pub async fn next(&mut self, in_flight: usize, counters: &Counters) -> Result<Next, QueueError> {
        // An eighth of the window is only for what is more urgent than data.
        let reserve = (self.window / 8).max(1);
        for at in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(at) else { break };
            let room = self.window - if lane.stream == Stream::Data { reserve } else { 0 };
            if in_flight >= room {
                continue;
            }
            if lane.buffer.is_empty() && !lane.dry {
                lane.buffer = self.queue.read(lane.stream, lane.read, BATCH).await?.into();
                lane.read = lane.buffer.back().map_or(lane.read, |e| e.seq);
                lane.dry = lane.buffer.is_empty();
            }
            let Some(entry) = lane.buffer.front() else { continue };
            if lane.stream == Stream::Data {
                let age = crate::clock::now_ms().saturating_sub(entry.message.time_ms);
                let old = u64::try_from(age).is_ok_and(|ms| u128::from(ms) > OLD.as_millis());
                if old && let Some(at) = self.pace.wait(Instant::now()) {
                    return Ok(Next::Wait(Some(at)));
                }
            }
            let Some(entry) = lane.buffer.pop_front() else { continue };
            return Ok(Next::Send(self.pack(at, &entry, counters)));
        }
        Ok(Next::Wait(None))
    }

    fn pack(&self, lane: usize, entry: &Entry, counters: &Counters) -> Ready {
        let stream = self.lanes.get(lane).map_or(Stream::Data, |l| l.stream);
        let Entry { seq, message } = entry;
        let up = Up {
            node: self.node,
            stream: stream.name(),
            seq: *seq,
            time_ms: message.time_ms,
            subject: &message.subject,
            payload: &message.payload,
        };
        let topic = CloudTopic::Up(stream.name().to_owned(), message.subject.clone()).below(self.base);
        let body = up.encode();
        if body.len() + topic.len() <= self.message_max && topic.len() <= usize::from(u16::MAX) {
            return Ready { stream, seq: *seq, topic, body };
        }
        // It would end the connection each time it is tried. An empty message in its place keeps the numbers whole and tells
        // the far side what is missing.
        counters.oversize(format!(
            "{}/{} of {} bytes is larger than cloud.message-max-kib allows",
            stream.name(),
            message.subject.chars().take(SHOWN).collect::<String>(),
            body.len()
        ));
        tracing::error!(stream = stream.name(), seq, bytes = body.len(), "message too large for the cloud, left out");
        let up = Up { subject: "oversize", payload: &[], ..up };
        let topic = CloudTopic::Up(stream.name().to_owned(), up.subject.to_owned()).below(self.base);
        Ready { stream, seq: *seq, topic, body: up.encode() }
    }
}

/// A rate, as the moment the next message may go.
#[derive(Debug)]
struct Pace {
    /// Messages a second; 0 for no limit.
    rate: u32,
    next: Instant,
}

impl Pace {
    /// Takes a place; or says when there will be one.
    fn wait(&mut self, now: Instant) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        if self.next > now {
            return Some(self.next);
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.next = self.next.max(earliest) + Duration::from_secs(1) / self.rate;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Message;

    fn message(subject: &str, time_ms: i64, bytes: usize) -> Message {
        Message { time_ms, subject: subject.to_owned(), payload: vec![b'x'; bytes] }
    }

    async fn take(feed: &mut Feed<'_>, in_flight: usize, counters: &Counters) -> Option<(Stream, u64)> {
        match feed.next(in_flight, counters).await.unwrap() {
            Next::Send(ready) => Some((ready.stream, ready.seq)),
            Next::Wait(_) => None,
        }
    }

    #[tokio::test]
    async fn urgent_first_each_in_its_order_and_room_is_kept() {
        let queue = Queue::in_memory();
        let settings = super::super::Settings { window: 8, node: "n".into(), ..Default::default() };
        let counters = Counters::default();
        let now = crate::clock::now_ms();
        for _ in 0..40 {
            queue.push(Stream::Data, message("d", now, 1)).await.unwrap();
        }
        let mut feed = Feed::new(&queue, "edge/n", &settings);
        assert_eq!(take(&mut feed, 0, &counters).await, Some((Stream::Data, 1)));
        queue.push(Stream::Replies, message("r", now, 1)).await.unwrap();
        queue.push(Stream::Events, message("e", now, 1)).await.unwrap();
        assert_eq!(take(&mut feed, 1, &counters).await, Some((Stream::Data, 2)), "nobody said that something changed");
        feed.changed();
        assert_eq!(
            take(&mut feed, 7, &counters).await,
            Some((Stream::Replies, 1)),
            "the last place is for what is urgent"
        );
        assert_eq!(take(&mut feed, 8, &counters).await, None);
        assert_eq!(take(&mut feed, 7, &counters).await, Some((Stream::Events, 1)));
        assert_eq!(take(&mut feed, 7, &counters).await, None);
        for seq in 3..=40 {
            assert_eq!(take(&mut feed, 0, &counters).await, Some((Stream::Data, seq)));
        }
        assert_eq!(take(&mut feed, 0, &counters).await, None);
        queue.ack(Stream::Data, 17).await.unwrap();
        let mut again = Feed::new(&queue, "edge/n", &settings);
        assert_eq!(take(&mut again, 7, &counters).await, Some((Stream::Replies, 1)));
    }

    #[tokio::test]
    async fn old_data_waits_for_its_rate_and_new_data_does_not() {
        let queue = Queue::in_memory();
        let settings = super::super::Settings { drain_rate: 1, node: "n".into(), ..Default::default() };
        let counters = Counters::default();
        for _ in 0..3 {
            queue.push(Stream::Data, message("d", 0, 1)).await.unwrap();
        }
        queue.push(Stream::Events, message("e", 0, 1)).await.unwrap();
        let mut feed = Feed::new(&queue, "edge/n", &settings);
        assert_eq!(take(&mut feed, 0, &counters).await, Some((Stream::Events, 1)));
        assert_eq!(take(&mut feed, 0, &counters).await, Some((Stream::Data, 1)));
        assert!(matches!(feed.next(0, &counters).await, Ok(Next::Wait(Some(_)))));
        let mut free = Feed::new(&queue, "edge/n", &settings);
        free.pace.rate = 0;
        assert_eq!(take(&mut free, 0, &counters).await, Some((Stream::Events, 1)));
        for seq in 1..=3 {
            assert_eq!(take(&mut free, 0, &counters).await, Some((Stream::Data, seq)));
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_replaced_and_counted() {
        let queue = Queue::in_memory();
        let settings = super::super::Settings { message_max_bytes: 1024, node: "n".into(), ..Default::default() };
        let counters = Counters::default();
        queue.push(Stream::Data, message("d", crate::clock::now_ms(), 2000)).await.unwrap();
        let mut feed = Feed::new(&queue, "edge/n", &settings);
        let Ok(Next::Send(ready)) = feed.next(0, &counters).await else { panic!("nothing") };
        assert_eq!(ready.topic, "edge/n/up/data/oversize");
        assert!(ready.body.len() < 1024);
        assert_eq!(counters.snapshot().oversize_total, 1);
        let told = counters.left_out.lock().unwrap().clone().unwrap();
        assert!(told.starts_with("data/d of "), "{told}");
        queue.push(Stream::Data, message("d", crate::clock::now_ms(), 20)).await.unwrap();
        feed.changed();
        assert_eq!(take(&mut feed, 0, &counters).await, Some((Stream::Data, 2)), "the next one goes");
    }
}
