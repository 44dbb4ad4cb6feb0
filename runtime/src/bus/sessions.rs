//! The sessions by client identifier: who is connected, who is away and for how long, and the taking over of one by the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rumqttd::protocol::{Filter, RetainForwardRule};
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::{Bus, Options, Settings, State, Subscriber, count, filter};

/// The sessions.
#[derive(Default)]
pub struct Sessions {
    by_client: HashMap<String, Entry>,
    last_epoch: u64,
}

struct Entry {
    session: Arc<Session>,
    presence: Presence,
}

enum Presence {
    /// Connected; the token ends that connection.
    Here { epoch: u64, kick: CancellationToken },
    /// Away until it comes back or its time is over.
    Away { since: Instant, until: Instant },
}

impl Sessions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_client.len()
    }
}

/// A session in the hands of one connection. Giving it back happens on drop, so that not even a panic keeps it.
pub struct Attached {
    bus: Bus,
    client: String,
    epoch: u64,
    /// The session.
    pub session: Arc<Session>,
    /// Whether it was there before.
    pub present: bool,
    /// Another connection has taken it.
    pub kicked: CancellationToken,
    /// How long it stays after this connection.
    pub expiry: Duration,
}

impl Attached {
    /// Names this connection to [`Outbox::next`](super::session::Outbox::next).
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.bus.counters().connections.fetch_sub(1, Ordering::Relaxed);
        let settings = self.bus.shared.settings.clone();
        let mut state = self.bus.lock();
        let Some(entry) = state.sessions.by_client.get_mut(&self.client) else { return };
        if !matches!(entry.presence, Presence::Here { epoch, .. } if epoch == self.epoch) {
            return;
        }
        if self.expiry.is_zero() {
            state.end_session(&self.client);
        } else {
            let since = Instant::now();
            entry.presence = Presence::Away { since, until: since + self.expiry };
            entry.session.lock().detach();
            state.trim_sessions(&settings);
        }
    }
}

/// What a SUBSCRIBE got for one of its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// It is there.
    Yes,
    /// The filter is not one.
    Invalid,
    /// Shared subscriptions are not supported.
    Shared,
    /// The client has too many already.
    TooMany,
}

impl Bus {
    /// Gives the session of this client to a new connection, taking it from the one that has it. A clean start forgets what
    /// was there.
    pub(super) fn attach(&self, client: &str, clean: bool, expiry: Duration) -> Attached {
        let kicked = CancellationToken::new();
        let mut state = self.lock();
        state.trim_sessions(&self.shared.settings);
        state.sessions.last_epoch += 1;
        let epoch = state.sessions.last_epoch;
        if let Some(Entry { presence: Presence::Here { kick, .. }, .. }) = state.sessions.by_client.get(client) {
            kick.cancel();
        }
        if clean {
            state.end_session(client);
        }
        let here = Presence::Here { epoch, kick: kicked.clone() };
        let (session, present) = match state.sessions.by_client.get_mut(client) {
            Some(entry) => {
                entry.presence = here;
                (Arc::clone(&entry.session), true)
            }
            None => {
                let session = Arc::new(Session::new(state.new_id()));
                state.subscribers.insert(session.id, Subscriber::Client(Arc::clone(&session)));
                let entry = Entry { session: Arc::clone(&session), presence: here };
                state.sessions.by_client.insert(client.to_owned(), entry);
                (session, false)
            }
        };
        session.lock().attach(epoch);
        self.counters().connections.fetch_add(1, Ordering::Relaxed);
        count(&self.counters().connections_total, 1);
        Attached { bus: self.clone(), client: client.to_owned(), epoch, session, present, kicked, expiry }
    }

    /// Subscribes a client, and gives it the retained messages its rule asks for.
    pub(super) fn subscribe_client(
        &self,
        session: &Session,
        wanted: &Filter,
        identifier: Option<usize>,
        settings: &Settings,
    ) -> Subscribed {
        if wanted.path.starts_with("$share/") {
            return Subscribed::Shared;
        }
        if !filter::valid_filter(&wanted.path) {
            return Subscribed::Invalid;
        }
        let options = Options {
            qos: wanted.qos,
            no_local: wanted.nolocal,
            retain_as_published: wanted.preserve_retain,
            identifier,
        };
        let mut state = self.lock();
        let new = {
            let mut outbox = session.lock();
            let known = outbox.filters.contains(&wanted.path);
            if !known && outbox.filters.len() >= settings.max_subscriptions {
                return Subscribed::TooMany;
            }
            outbox.filters.insert(wanted.path.clone())
        };
        state.tree.insert(&wanted.path, session.id, options);
        let give = match wanted.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => true,
            RetainForwardRule::OnNewSubscribe => new,
            RetainForwardRule::Never => false,
        };
        if give {
            for publication in state.retained.matching(&wanted.path) {
                let dropped = !session.offer_retained(&publication, &options, settings);
                count(&self.counters().dropped_client, u64::from(dropped));
            }
        }
        Subscribed::Yes
    }

    /// Takes a subscription back; false when there was none.
    pub(super) fn unsubscribe_client(&self, session: &Session, filter: &str) -> bool {
        let mut state = self.lock();
        session.lock().filters.remove(filter);
        state.tree.remove(filter, session.id).is_some()
    }
}

impl State {
    fn end_session(&mut self, client: &str) {
        if let Some(entry) = self.sessions.by_client.remove(client) {
            let filters: Vec<String> = entry.session.lock().filters.drain().collect();
            self.forget(entry.session.id, &filters);
        }
    }

    /// Ends the sessions whose time is over, and those away longest when there are too many.
    fn trim_sessions(&mut self, settings: &Settings) {
        let now = Instant::now();
        let mut away: Vec<(Instant, bool, String)> = self
            .sessions
            .by_client
            .iter()
            .filter_map(|(client, entry)| match entry.presence {
                Presence::Away { since, until } => Some((since, until <= now, client.clone())),
                Presence::Here { .. } => None,
            })
            .collect();
        away.sort_unstable();
        let live = away.iter().filter(|(_, over, _)| !over).count();
        let mut too_many = live.saturating_sub(settings.max_sessions);
        for (_, over, client) in away {
            if over || too_many > 0 {
                too_many -= usize::from(!over);
                self.end_session(&client);
            }
        }
    }
}
