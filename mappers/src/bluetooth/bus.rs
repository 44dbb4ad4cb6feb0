//! Our own connection to the system's D-Bus: what happens to bluetoothd and its adapters, and pairing.
//!
//! BlueZ asks an agent of ours for the passkey while it pairs (org.bluez.Agent1); the agent knows only devices whose
//! description says `bond` or `passkey`, and says no to everybody else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dbus::Message;
use dbus::channel::{MatchingReceiver as _, Sender as _};
use dbus::message::MatchRule;
use dbus::nonblock::stdintf::org_freedesktop_dbus::Properties as _;
use dbus::nonblock::{MsgMatch, Proxy, SyncConnection};
use futures_util::stream;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::address::Address;
use super::link::{Fault, Stream};

const BLUEZ: &str = "org.bluez";
/// The path of our agent.
const AGENT: &str = "/edge_runtime/agent";
/// Somebody who pairs may have to press a button on the device.
const PAIRING: Duration = Duration::from_secs(60);
/// Everything else is between processes of this machine.
const CALL: Duration = Duration::from_secs(25);
/// Notices that wait for an adapter's task, which has nothing else to do; who misses one is told the bus is lost.
const NOTICES: usize = 64;

/// Something happened to the daemon or an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The connection to D-Bus ended.
    BusLost,
    /// bluetoothd ended or was replaced.
    DaemonGone,
    /// The adapter with this path was removed.
    Removed(String),
    /// The adapter with this path stopped scanning.
    ScanEnded(String),
}

/// Devices that may pair, and what to answer when they ask for a passkey.
type Wanted = Arc<Mutex<HashMap<String, Option<u32>>>>;

/// A connection to the system's D-Bus.
pub struct Bus {
    connection: Arc<SyncConnection>,
    io: JoinHandle<()>,
    notices: broadcast::Sender<Notice>,
    lost: Arc<AtomicBool>,
    wanted: Wanted,
    agent: tokio::sync::Mutex<bool>,
    /// By the path they are about. An adapter is watched for good once it was opened.
    matches: tokio::sync::Mutex<HashMap<String, MsgMatch>>,
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.io.abort();
    }
}

impl Bus {
    /// Connects and watches.
    ///
    /// # Errors
    /// There is no D-Bus.
    pub async fn open() -> Result<Bus, dbus::Error> {
        let (resource, connection) = dbus_tokio::connection::new_system_sync()?;
        connection.set_signal_match_mode(true);
        let (notices, _) = broadcast::channel(NOTICES);
        let lost = Arc::new(AtomicBool::new(false));
        let io = {
            let (notices, lost) = (notices.clone(), Arc::clone(&lost));
            tokio::spawn(async move {
                let error = resource.await;
                tracing::debug!(%error, "bluetooth: D-Bus connection ended");
                lost.store(true, Ordering::Release);
                // Nobody may be listening.
                let _ = notices.send(Notice::BusLost);
            })
        };
        let mut bus = Bus {
            connection,
            io,
            notices,
            lost,
            wanted: Wanted::default(),
            agent: tokio::sync::Mutex::new(false),
            matches: tokio::sync::Mutex::default(),
        };
        bus.watch().await?;
        Ok(bus)
    }

    /// Whether the connection has ended.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// What happens from now on.
    pub fn notices(&self) -> Stream<Notice> {
        let first = self.is_lost().then_some(Notice::BusLost);
        let receiver = self.notices.subscribe();
        let next = |(first, mut receiver): (Option<Notice>, broadcast::Receiver<Notice>)| async move {
            let notice = match first {
                Some(notice) => notice,
                None => match receiver.recv().await {
                    Ok(notice) => notice,
                    Err(_) => Notice::BusLost,
                },
            };
            Some((notice, (None, receiver)))
        };
        Box::pin(stream::unfold((first, receiver), next))
    }

    async fn watch(&mut self) -> Result<(), dbus::Error> {
        let owner = MatchRule::new_signal("org.freedesktop.DBus", "NameOwnerChanged");
        let notices = self.notices.clone();
        let owner = self.connection.add_match(owner).await?.cb(move |_, (name, old, _): (String, String, String)| {
            if name == BLUEZ && !old.is_empty() {
                let _ = notices.send(Notice::DaemonGone);
            }
            true
        });
        let removed =
            MatchRule::new_signal("org.freedesktop.DBus.ObjectManager", "InterfacesRemoved").with_sender(BLUEZ);
        let notices = self.notices.clone();
        let removed =
            self.connection.add_match(removed).await?.cb(move |_, (path, what): (dbus::Path<'static>, Vec<String>)| {
                if what.iter().any(|w| w == "org.bluez.Adapter1") {
                    let _ = notices.send(Notice::Removed(path.to_string()));
                }
                true
            });
        self.matches.get_mut().extend([(String::new(), owner), (BLUEZ.to_owned(), removed)]);
        Ok(())
    }

    /// Watches one adapter, and not its devices, which change all the time.
    ///
    /// # Errors
    /// D-Bus is gone.
    pub async fn watch_adapter(&self, path: &str) -> Result<(), dbus::Error> {
        let mut matches = self.matches.lock().await;
        if matches.contains_key(path) {
            return Ok(());
        }
        let rule = MatchRule::new_signal("org.freedesktop.DBus.Properties", "PropertiesChanged")
            .with_sender(BLUEZ)
            .with_path(path.to_owned());
        let notices = self.notices.clone();
        let changed = self.connection.add_match(rule).await?.msg_cb(move |message| {
            if let Some(path) = scan_ended(&message) {
                let _ = notices.send(Notice::ScanEnded(path));
            }
            true
        });
        matches.insert(path.to_owned(), changed);
        Ok(())
    }

    fn proxy(&self, path: &str, timeout: Duration) -> Proxy<'static, Arc<SyncConnection>> {
        Proxy::new(BLUEZ, path.to_owned(), timeout, Arc::clone(&self.connection))
    }

    /// Switches an adapter on.
    ///
    /// # Errors
    /// It does not (blocked by rfkill, for example).
    pub async fn power(&self, adapter: &str) -> Result<(), String> {
        let done = self.proxy(adapter, CALL).set("org.bluez.Adapter1", "Powered", true).await;
        done.map_err(|e| e.to_string())
    }

    /// Pairs with a device unless that was done before, and trusts it.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn bond(&self, adapter: &str, address: Address, passkey: Option<u32>) -> Result<(), Fault> {
        let path = format!("{adapter}/dev_{}", address.to_string().replace(':', "_"));
        let device = self.proxy(&path, PAIRING);
        if device.get::<bool>("org.bluez.Device1", "Paired").await.map_err(fault)? {
            return Ok(());
        }
        self.register().await?;
        let _pass = Pass::new(&self.wanted, path, passkey);
        device.method_call::<(), _, _, _>("org.bluez.Device1", "Pair", ()).await.map_err(fault)?;
        // A trusted device may reconnect by itself; that it cannot be trusted is no reason not to use it.
        if let Err(error) = device.set("org.bluez.Device1", "Trusted", true).await {
            tracing::debug!(%address, %error, "bluetooth: not trusted");
        }
        Ok(())
    }

    /// Registers the agent, once per life of bluetoothd.
    async fn register(&self) -> Result<(), Fault> {
        let mut served = self.agent.lock().await;
        if !*served {
            let calls = MatchRule::new_method_call().with_path(AGENT);
            let wanted = Arc::clone(&self.wanted);
            let serve = move |message: Message, connection: &SyncConnection| {
                if let Some(reply) = answer(&message, &wanted) {
                    let _ = connection.send(reply);
                }
                true
            };
            self.connection.start_receive(calls, Box::new(serve));
            *served = true;
        }
        let manager = self.proxy("/org/bluez", CALL);
        let arguments = (dbus::Path::from(AGENT), "KeyboardDisplay");
        match manager.method_call::<(), _, _, _>("org.bluez.AgentManager1", "RegisterAgent", arguments).await {
            Err(e) if e.name() == Some("org.bluez.Error.AlreadyExists") => Ok(()),
            done => done.map_err(fault),
        }
    }
}

/// Leave to pair, for as long as it takes.
struct Pass {
    wanted: Wanted,
    path: String,
}

impl Pass {
    fn new(wanted: &Wanted, path: String, passkey: Option<u32>) -> Pass {
        wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), passkey);
        Pass { wanted: Arc::clone(wanted), path }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

/// The path of the adapter that stopped scanning, if that is what the message says.
fn scan_ended(message: &Message) -> Option<String> {
    let path = message.path()?;
    let (interface, changed) = message.read2::<String, dbus::arg::PropMap>().ok()?;
    let stopped = dbus::arg::prop_cast::<bool>(&changed, "Discovering") == Some(&false);
    (interface == "org.bluez.Adapter1" && stopped).then(|| path.to_string())
}

fn fault(error: dbus::Error) -> Fault {
    let text = error.message().unwrap_or_default().to_owned();
    match error.name() {
        Some("org.freedesktop.DBus.Error.NoReply" | "org.bluez.Error.AuthenticationTimeout") => Fault::Timeout,
        Some("org.bluez.Error.AuthenticationFailed" | "org.bluez.Error.AuthenticationRejected") => {
            Fault::Refused(format!("pairing failed: {text}"))
        }
        _ => Fault::Disconnected(text),
    }
}

/// What the agent answers (BlueZ, doc/agent-api.txt).
fn answer(message: &Message, wanted: &Wanted) -> Option<Message> {
    let member = message.member()?;
    let rejected = || message.error(&"org.bluez.Error.Rejected".into(), c"not a device of this node");
    if matches!(&*member, "Release" | "Cancel" | "DisplayPinCode" | "DisplayPasskey") {
        return Some(message.method_return());
    }
    let known = message.get1::<dbus::Path<'_>>().and_then(|path| {
        let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.get(&*path).copied()
    });
    let Some(passkey) = known else { return Some(rejected()) };
    Some(match (&*member, passkey) {
        ("RequestPasskey", Some(passkey)) => message.method_return().append1(passkey),
        ("RequestPinCode", Some(passkey)) => message.method_return().append1(format!("{passkey:06}")),
        // Both sides show a number; it is right when it is the one that was told beforehand, or none was.
        ("RequestConfirmation", passkey) => match (passkey, message.get2::<dbus::Path<'_>, u32>().1) {
            (Some(told), Some(shown)) if told != shown => rejected(),
            _ => message.method_return(),
        },
        ("RequestAuthorization" | "AuthorizeService", _) => message.method_return(),
        _ => rejected(),
    })
}
