//! SOAP 1.2 messages of ONVIF, to values and back. Purely: bytes from a camera are only ever read here.
//!
//! A document type is refused, so that there are no entities to expand; elements are counted. Names are told apart by what
//! comes after the prefix only: cameras are known that mix up the namespaces, and no two of these mean different things.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_model::device::onvif::{Transport, What};
use edge_model::time::{parse_rfc3339, rfc3339_millis};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value as Json, json};
use sha1::{Digest as _, Sha1};

/// Elements, attributes and texts in a message at most.
const MAX_NODES: u32 = 20_000;

/// The namespace of the device service's messages.
const DEVICE: &str = "http://www.onvif.org/ver10/device/wsdl";
/// That of the media service's.
pub(super) const MEDIA: &str = "http://www.onvif.org/ver10/media/wsdl";
const ENVELOPE: &str = "http://www.w3.org/2003/05/soap-envelope";
const SECURITY: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
const UTILITY: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
const DIGEST: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordDigest";
const BASE64: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary";

/// What a camera is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// Its clock; it is told to everybody (ONVIF Core, section 5.9.4.4).
    DateTime,
    /// What it is.
    Information,
    /// Where its services are.
    Services,
    /// The same of cameras before ONVIF 2.
    Capabilities,
    /// Its media profiles.
    Profiles,
    /// Where a picture of a profile is.
    SnapshotUri(&'a str),
    /// Where the video of a profile is.
    StreamUri(&'a str, Transport),
}

/// Why an answer has no value in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The camera said no.
    #[error("{0}")]
    Refused(String),
    /// It is no answer.
    #[error("{0}")]
    Garbage(String),
}

/// Who asks: the UsernameToken of WS-Security with a digest in the password's place.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// The user.
    pub user: &'a str,
    /// The user's password.
    pub password: &'a str,
    /// Never the same twice.
    pub nonce: [u8; 16],
    /// The time on the camera's clock, UTC milliseconds.
    pub created_ms: i64,
}

impl Token<'_> {
    /// `Base64(SHA-1(nonce + created + password))` (UsernameToken Profile 1.0, section 3.1).
    fn header(&self) -> String {
        let created = rfc3339_millis(self.created_ms);
        let mut hash = Sha1::new();
        hash.update(self.nonce);
        hash.update(&created);
        hash.update(self.password);
        let (digest, nonce) = (STANDARD.encode(hash.finalize()), STANDARD.encode(self.nonce));
        format!(
            "<s:Header><w:Security xmlns:w=\"{SECURITY}\" s:mustUnderstand=\"1\"><w:UsernameToken>\
             <w:Username>{}</w:Username><w:Password Type=\"{DIGEST}\">{digest}</w:Password>\
             <w:Nonce EncodingType=\"{BASE64}\">{nonce}</w:Nonce>\
             <u:Created xmlns:u=\"{UTILITY}\">{created}</u:Created></w:UsernameToken></w:Security></s:Header>",
            escape(self.user)
        )
    }
}

impl Ask<'_> {
    /// The name of the message, and the namespace.
    pub(super) const fn name(self) -> (&'static str, &'static str) {
        match self {
            Ask::DateTime => ("GetSystemDateAndTime", DEVICE),
            Ask::Information => ("GetDeviceInformation", DEVICE),
            Ask::Services => ("GetServices", DEVICE),
            Ask::Capabilities => ("GetCapabilities", DEVICE),
            Ask::Profiles => ("GetProfiles", MEDIA),
            Ask::SnapshotUri(_) => ("GetSnapshotUri", MEDIA),
            Ask::StreamUri(..) => ("GetStreamUri", MEDIA),
        }
    }

    /// The message.
    pub fn message(self, token: Option<Token<'_>>) -> String {
        let (name, space) = self.name();
        let inner = match self {
            Ask::Services => "<m:IncludeCapability>false</m:IncludeCapability>".to_owned(),
            Ask::Capabilities => "<m:Category>Media</m:Category>".to_owned(),
            Ask::SnapshotUri(profile) => format!("<m:ProfileToken>{}</m:ProfileToken>", escape(profile)),
            Ask::StreamUri(profile, transport) => {
                let (stream, protocol) = match transport {
                    Transport::Rtsp => ("RTP-Unicast", "RTSP"),
                    Transport::Udp => ("RTP-Unicast", "UDP"),
                    Transport::Multicast => ("RTP-Multicast", "UDP"),
                    Transport::Http => ("RTP-Unicast", "HTTP"),
                };
                format!(
                    "<m:StreamSetup><t:Stream xmlns:t=\"http://www.onvif.org/ver10/schema\">{stream}</t:Stream>\
                     <t:Transport xmlns:t=\"http://www.onvif.org/ver10/schema\"><t:Protocol>{protocol}</t:Protocol>\
                     </t:Transport></m:StreamSetup><m:ProfileToken>{}</m:ProfileToken>",
                    escape(profile)
                )
            }
            Ask::DateTime | Ask::Information | Ask::Profiles => String::new(),
        };
        let header = token.map(|t| t.header()).unwrap_or_default();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><s:Envelope xmlns:s=\"{ENVELOPE}\">{header}<s:Body>\
             <m:{name} xmlns:m=\"{space}\">{inner}</m:{name}></s:Body></s:Envelope>"
        )
    }

    /// Takes an answer to this apart.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub fn answer<T>(self, text: &str, take: impl FnOnce(Node<'_, '_>) -> Option<T>) -> Result<T, Fault> {
        let document = parse(text).map_err(Fault::Garbage)?;
        let body = document.root_element().children().find(|n| is(*n, "Body"));
        let body = body.ok_or_else(|| Fault::Garbage("there is no SOAP body".to_owned()))?;
        let Some(inner) = body.children().find(Node::is_element) else {
            return Err(Fault::Garbage("the SOAP body is empty".to_owned()));
        };
        if is(inner, "Fault") {
            // SOAP 1.2 and, of cameras that cannot help it, 1.1.
            let reason = found(inner, "Text").or_else(|| found(inner, "faultstring")).unwrap_or("SOAP fault");
            let code = inner.descendants().filter(|n| is(*n, "Value")).filter_map(|n| n.text()).next_back();
            let code = code.map(|c| c.trim().rsplit(':').next().unwrap_or_default()).unwrap_or_default();
            return Err(Fault::Refused(if code.is_empty() { reason.to_owned() } else { format!("{reason} ({code})") }));
        }
        let expected = self.name().0;
        if inner.tag_name().name().strip_suffix("Response") != Some(expected) {
            let name = inner.tag_name().name();
            return Err(Fault::Garbage(format!("{name:?} does not answer {expected}")));
        }
        take(inner).ok_or_else(|| Fault::Garbage(format!("{expected} was answered without what was asked for")))
    }
}

/// The clock in an answer, UTC milliseconds.
pub fn date_time(answer: Node<'_, '_>) -> Option<i64> {
    let utc = answer.descendants().find(|n| is(*n, "UTCDateTime"))?;
    let number = |name: &str| found(utc, name)?.parse::<u32>().ok();
    let (year, month, day) = (number("Year")?, number("Month")?, number("Day")?);
    let (hour, minute, second) = (number("Hour")?, number("Minute")?, number("Second")?);
    parse_rfc3339(&format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// One text of what a camera says of itself.
pub fn information(answer: Node<'_, '_>, what: What) -> Option<String> {
    let name = match what {
        What::Manufacturer => "Manufacturer",
        What::Model => "Model",
        What::FirmwareVersion => "FirmwareVersion",
        What::SerialNumber => "SerialNumber",
        What::HardwareId => "HardwareId",
        _ => return None,
    };
    found(answer, name).map(str::to_owned)
}

/// The address of the media service among a camera's services.
pub fn media_service(answer: Node<'_, '_>) -> Option<String> {
    let service = answer.children().find(|n| found(*n, "Namespace") == Some(MEDIA));
    // The older answer has no namespaces: an element's name says which service it is.
    let service = service.or_else(|| answer.descendants().find(|n| is(*n, "Media")))?;
    found(service, "XAddr").map(str::to_owned)
}

/// The media profiles, as the property shows them; never none.
pub fn profiles(answer: Node<'_, '_>) -> Option<Vec<Json>> {
    let profile = |node: Node<'_, '_>| {
        let token = node.attribute("token").filter(|t| !t.is_empty())?;
        let name = node.children().find(|n| is(*n, "Name")).and_then(|n| n.text()).map(str::trim);
        let mut profile = json!({"token": token, "name": name.unwrap_or_default()});
        if let Some(encoder) = node.children().find(|n| is(*n, "VideoEncoderConfiguration")) {
            if let Some(encoding) = found(encoder, "Encoding") {
                profile["encoding"] = json!(encoding);
            }
            for (key, element) in [("width", "Width"), ("height", "Height")] {
                if let Some(pixels) = found(encoder, element).and_then(|t| t.parse::<u32>().ok()) {
                    profile[key] = json!(pixels);
                }
            }
        }
        Some(profile)
    };
    let profiles: Vec<Json> = answer.children().filter(|n| is(*n, "Profiles")).filter_map(profile).collect();
    Some(profiles).filter(|p| !p.is_empty())
}

/// The URI in an answer.
pub fn uri(answer: Node<'_, '_>) -> Option<String> {
    found(answer, "Uri").map(str::to_owned)
}

/// An XML document.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Document<'_>, String> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    // Cameras are known to begin with an empty line, which XML does not allow before its declaration.
    Document::parse_with_options(text.trim(), options).map_err(|e| e.to_string())
}

/// Whether a node is an element of this name.
pub(super) fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

/// The text of the first element of this name below a node, trimmed and not empty.
pub(super) fn found<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let element = node.descendants().find(|n| is(*n, name))?;
    element.text().map(str::trim).filter(|t| !t.is_empty())
}

/// Text as it stands in XML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not in XML 1.0 at all (section 2.2).
            c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
