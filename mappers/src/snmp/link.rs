//! Requests to an agent, with a time-out and repeats each.
//!
//! A session that has timed out is thrown away: a late answer would be taken for that of the next request, which the library
//! can only refuse.

use std::time::Duration;

use edge_model::device::snmp::{Auth, Link as Settings, Privacy, Version};
use snmp2::v3::{self, KeyExtension, Security};
use snmp2::{AsyncSession, Error, Oid, Pdu, Value};
use tokio::time::timeout;

use super::config::Id;
use super::decode::{Set, Wire};
use crate::AccessError;

/// Values one answer of a walk carries.
const BULK: u32 = 20;
/// How often a session is told that its clock or engine has moved on before it is given up (RFC 3414, section 3.2).
const UPDATES: u32 = 3;

/// What an agent answered.
#[derive(Debug)]
pub(super) struct Reply {
    /// The error, 0 for none (RFC 3416, section 3).
    pub(super) status: u32,
    /// Which value the error is about, counted from 1.
    pub(super) index: usize,
    pub(super) values: Vec<(Id, Wire)>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    /// These.
    Get(&'a [&'a Id]),
    /// What comes after this; several, if the version can.
    Next(&'a Id),
    /// That an object gets a value.
    Set(&'a Id, &'a Set),
}

/// The session, if there is one.
#[derive(Default)]
pub(super) struct Link {
    session: Option<AsyncSession>,
}

impl Link {
    /// Asks, and asks again when nothing comes.
    ///
    /// # Errors
    /// [`AccessError::Timeout`], [`AccessError::Disconnected`], [`AccessError::Garbage`].
    pub(super) async fn ask(&mut self, to: &Settings, ask: Ask<'_>) -> Result<Reply, AccessError> {
        let limit = Duration::from_millis(to.timeout);
        // A write has another community, and with it a session of its own.
        let other = match ask {
            Ask::Set(..) => to.write_community.as_deref().filter(|c| *c != to.community && to.version != Version::V3),
            _ => None,
        };
        let mut error = AccessError::Timeout(u32::try_from(to.timeout).unwrap_or(u32::MAX));
        let mut updates = 0;
        let mut tries = 0;
        while tries <= to.retries {
            let kept = if other.is_some() { None } else { self.session.take() };
            let asked = timeout(limit, async {
                let mut session = match kept {
                    Some(session) => session,
                    None => open(to, other.unwrap_or(&to.community)).await?,
                };
                let reply = exchange(&mut session, to.version, ask).await;
                Ok::<_, AccessError>((session, reply))
            });
            match asked.await {
                Err(_) => tries += 1,
                // Nobody there, or wrong keys: asking again at once changes nothing.
                Ok(Err(e)) => return Err(e),
                Ok(Ok((session, Ok(reply)))) => {
                    if other.is_none() {
                        self.session = Some(session);
                    }
                    return Ok(reply);
                }
                // The agent was restarted or its clock moved on: the session knows now, and the request is made again.
                Ok(Ok((session, Err(Error::AuthUpdated)))) if updates < UPDATES => {
                    updates += 1;
                    self.session = Some(session);
                }
                Ok(Ok((_, Err(e)))) => {
                    error = failed(&e);
                    tries += 1;
                }
            }
        }
        Err(error)
    }
}

async fn open(to: &Settings, community: &str) -> Result<AsyncSession, AccessError> {
    let lost = |e: std::io::Error| AccessError::Disconnected(e.to_string());
    let mut random = [0u8; 4];
    getrandom::fill(&mut random).map_err(|e| AccessError::Disconnected(e.to_string()))?;
    // Agents drop messages with a negative number without a word (RFC 3412, section 6: 0 to 2^31 - 1).
    let first = i32::from_be_bytes(random) & 0x3fff_ffff;
    let (at, community) = ((to.host.as_str(), to.port), community.as_bytes());
    let mut session = match to.version {
        Version::V1 => AsyncSession::new_v1(at, community, first).await.map_err(lost)?,
        Version::V2c => AsyncSession::new_v2c(at, community, first).await.map_err(lost)?,
        Version::V3 => AsyncSession::new_v3(at, first, security(to)).await.map_err(lost)?,
    };
    session.init().await.map_err(|e| failed(&e))?;
    Ok(session)
}

fn security(to: &Settings) -> Security {
    let protocol = match to.auth.unwrap_or(Auth::Sha) {
        Auth::Md5 => v3::AuthProtocol::Md5,
        Auth::Sha => v3::AuthProtocol::Sha1,
        Auth::Sha224 => v3::AuthProtocol::Sha224,
        Auth::Sha256 => v3::AuthProtocol::Sha256,
        Auth::Sha384 => v3::AuthProtocol::Sha384,
        Auth::Sha512 => v3::AuthProtocol::Sha512,
    };
    let cipher = to.privacy.map(|p| match p {
        Privacy::Des => v3::Cipher::Des,
        Privacy::Aes => v3::Cipher::Aes128,
        Privacy::Aes192 => v3::Cipher::Aes192,
        Privacy::Aes256 => v3::Cipher::Aes256,
    });
    let auth = match (to.auth, cipher) {
        (None, _) => v3::Auth::NoAuthNoPriv,
        (Some(_), None) => v3::Auth::AuthNoPriv,
        (Some(_), Some(cipher)) => {
            v3::Auth::AuthPriv { cipher, privacy_password: to.privacy_password.clone().into_bytes() }
        }
    };
    Security::new(to.user.as_bytes(), to.auth_password.as_bytes())
        .with_auth(auth)
        .with_auth_protocol(protocol)
        // Keys that are too short for their cipher: most agents, net-snmp's among them, do it Blumenthal's way.
        .with_key_extension_method(KeyExtension::Blumenthal)
}

async fn exchange(session: &mut AsyncSession, version: Version, ask: Ask<'_>) -> Result<Reply, Error> {
    let pdu = match ask {
        Ask::Get(ids) => {
            let oids: Vec<Oid<'static>> = ids.iter().map(|id| oid(id)).collect::<Result<_, _>>()?;
            session.get_many(&oids.iter().collect::<Vec<_>>()).await?
        }
        Ask::Next(id) if version == Version::V1 => session.getnext(&oid(id)?).await?,
        Ask::Next(id) => session.getbulk(&[&oid(id)?], 0, BULK).await?,
        Ask::Set(id, set) => {
            let named;
            let value = match set {
                Set::Integer(i) => Value::Integer(*i),
                Set::Unsigned(u) => Value::Unsigned32(*u),
                Set::Ticks(t) => Value::Timeticks(*t),
                Set::Octets(bytes) => Value::OctetString(bytes),
                Set::Oid(id) => {
                    named = oid(id)?;
                    Value::ObjectIdentifier(named)
                }
                Set::Ip(ip) => Value::IpAddress(*ip),
            };
            session.set(&[(&oid(id)?, value)]).await?
        }
    };
    Ok(Reply {
        status: pdu.error_status,
        index: usize::try_from(pdu.error_index).unwrap_or(usize::MAX),
        values: values(&pdu),
    })
}

fn oid(id: &Id) -> Result<Oid<'static>, Error> {
    Oid::from(&id.0).map_err(|_| Error::ValueOutOfRange)
}

/// An identifier as the library has it.
pub(super) fn id(oid: &Oid<'_>) -> Option<Id> {
    oid.iter().map(Iterator::collect).map(Id)
}

/// What a message carries.
pub(super) fn values(pdu: &Pdu<'_>) -> Vec<(Id, Wire)> {
    let one = |(name, value): (Oid<'_>, Value<'_>)| {
        let wire = match value {
            Value::Integer(i) => Wire::Integer(i),
            Value::Boolean(b) => Wire::Integer(i64::from(b)),
            Value::Counter32(u) | Value::Unsigned32(u) | Value::Timeticks(u) => Wire::Unsigned(u64::from(u)),
            Value::Counter64(u) => Wire::Unsigned(u),
            Value::OctetString(bytes) => Wire::Octets(bytes.to_vec()),
            Value::Opaque(bytes) => Wire::opaque(bytes),
            Value::ObjectIdentifier(oid) => id(&oid).map_or(Wire::Strange, |id| Wire::Text(id.to_string())),
            Value::IpAddress(ip) => Wire::Text(std::net::Ipv4Addr::from(ip).to_string()),
            Value::NoSuchObject | Value::NoSuchInstance | Value::EndOfMibView => Wire::Missing,
            _ => Wire::Strange,
        };
        Some((id(&name)?, wire))
    };
    pdu.varbinds.clone().filter_map(one).collect()
}

fn failed(error: &Error) -> AccessError {
    match error {
        // The library has no kernel's word for it: nobody listens on the port, or the network is down.
        Error::Send | Error::Receive => AccessError::Disconnected("nobody answers at the agent's port".to_owned()),
        Error::AuthFailure(why) => AccessError::Disconnected(format!("not authenticated: {why}")),
        Error::CommunityMismatch | Error::RequestIdMismatch => {
            AccessError::Garbage("the answer to something else".to_owned())
        }
        other => AccessError::Garbage(other.to_string()),
    }
}

/// The name of an error status (RFC 3416, section 3).
pub(super) const fn status(code: u32) -> &'static str {
    match code {
        1 => "tooBig",
        2 => "noSuchName",
        3 => "badValue",
        4 => "readOnly",
        5 => "genErr",
        6 => "noAccess",
        7 => "wrongType",
        8 => "wrongLength",
        9 => "wrongEncoding",
        10 => "wrongValue",
        11 => "noCreation",
        12 => "inconsistentValue",
        13 => "resourceUnavailable",
        14 => "commitFailed",
        15 => "undoFailed",
        16 => "authorizationError",
        17 => "notWritable",
        18 => "inconsistentName",
        _ => "an unknown error",
    }
}
