//! Messages of ONVIF as cameras send them, and as nobody should.

use super::*;
use proptest::prelude::*;

fn envelope(inner: &str) -> String {
    format!(
        "\n<?xml version=\"1.0\"?><SOAP-ENV:Envelope xmlns:SOAP-ENV=\"{ENVELOPE}\" xmlns:tt=\"t\" xmlns:tds=\"d\" \
        xmlns:ter=\"e\"><SOAP-ENV:Body>{inner}</SOAP-ENV:Body></SOAP-ENV:Envelope>"
    )
}

#[test]
fn the_digest_is_that_of_the_specification() {
    // The example of the ONVIF Application Programmer's Guide, section 6.1.1.3.
    let nonce = STANDARD.decode("LKqI6G/AikKCQrN0zqZFlg==").unwrap();
    let created_ms = parse_rfc3339("2010-09-16T07:50:45Z").unwrap();
    let token = Token { user: "user", password: "userpassword", nonce: nonce.try_into().unwrap(), created_ms };
    // The guide writes whole seconds, and we milliseconds: the digest is taken of what is written.
    let mut hash = Sha1::new();
    hash.update(token.nonce);
    hash.update("2010-09-16T07:50:45Z");
    hash.update(token.password);
    assert_eq!(STANDARD.encode(hash.finalize()), "tuOSpGlFlIXsozq4HFNeeGeFLEI=");
    let header = token.header();
    assert!(header.contains(">LKqI6G/AikKCQrN0zqZFlg==<") && header.contains(">2010-09-16T07:50:45.000Z<"), "{header}");
}

#[test]
fn what_is_asked_is_xml_whatever_the_names() {
    let token = Token { user: "<&\">\u{1}", password: "", nonce: [0; 16], created_ms: 0 };
    let asks = [
        Ask::DateTime,
        Ask::Information,
        Ask::Services,
        Ask::Capabilities,
        Ask::Profiles,
        Ask::SnapshotUri("a<b"),
        Ask::StreamUri("a&b", Transport::Multicast),
    ];
    for ask in asks {
        let text = ask.message(Some(token));
        let document = parse(&text).unwrap();
        assert_eq!(found(document.root_element(), "Username"), Some("<&\">"));
        let asked = document.descendants().find(|n| is(*n, ask.name().0)).unwrap();
        assert_eq!(asked.tag_name().namespace(), Some(ask.name().1));
    }
}

#[test]
fn answers_are_taken_apart() {
    let clock = envelope(
        "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:UTCDateTime><tt:Time><tt:Hour>7\
        </tt:Hour><tt:Minute>50</tt:Minute><tt:Second>45</tt:Second></tt:Time><tt:Date><tt:Year>2010</tt:Year><tt:Month>9\
        </tt:Month><tt:Day>16</tt:Day></tt:Date></tt:UTCDateTime></tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>",
    );
    assert_eq!(Ask::DateTime.answer(&clock, date_time), Ok(1_284_623_445_000));
    let media = format!(
        "<GetServicesResponse><Service><Namespace>{DEVICE}</Namespace><XAddr>http://a/d</XAddr></Service>\
        <Service><Namespace>{MEDIA}</Namespace><XAddr> http://a/m </XAddr></Service></GetServicesResponse>"
    );
    assert_eq!(Ask::Services.answer(&envelope(&media), media_service), Ok("http://a/m".to_owned()));
    let older = "<GetCapabilitiesResponse><Capabilities><Media><XAddr>http://a/m</XAddr></Media></Capabilities></GetCapabilitiesResponse>";
    assert_eq!(Ask::Capabilities.answer(&envelope(older), media_service), Ok("http://a/m".to_owned()));
    let listed = "<GetProfilesResponse><Profiles token=\"p\"><Name>Main</Name><VideoEncoderConfiguration><Name>x</Name>\
        <Encoding>H264</Encoding><Resolution><Width>640</Width><Height>480</Height></Resolution>\
        </VideoEncoderConfiguration></Profiles><Profiles token=\"q\"/></GetProfilesResponse>";
    let expected = vec![
        json!({"token": "p", "name": "Main", "encoding": "H264", "width": 640, "height": 480}),
        json!({"token": "q", "name": ""}),
    ];
    assert_eq!(Ask::Profiles.answer(&envelope(listed), profiles), Ok(expected));
    let found =
        "<GetSnapshotUriResponse><MediaUri><Uri>http://a/s?x=1&amp;y=2</Uri></MediaUri></GetSnapshotUriResponse>";
    assert_eq!(Ask::SnapshotUri("p").answer(&envelope(found), uri), Ok("http://a/s?x=1&y=2".to_owned()));
}

#[test]
fn what_is_no_answer_is_said() {
    let refused = envelope(
        "<SOAP-ENV:Fault><SOAP-ENV:Code><SOAP-ENV:Value>SOAP-ENV:Sender</SOAP-ENV:Value><SOAP-ENV:Subcode>\
        <SOAP-ENV:Value>ter:NotAuthorized</SOAP-ENV:Value></SOAP-ENV:Subcode></SOAP-ENV:Code><SOAP-ENV:Reason><SOAP-ENV:Text>\
        Sender not Authorized</SOAP-ENV:Text></SOAP-ENV:Reason></SOAP-ENV:Fault>",
    );
    let fault = Ask::Information.answer(&refused, uri).unwrap_err();
    assert_eq!(fault, Fault::Refused("Sender not Authorized (NotAuthorized)".into()));
    let entities = format!(
        "<!DOCTYPE x [<!ENTITY a \"b\">]>{}",
        envelope("<GetProfilesResponse>&a;</GetProfilesResponse>").trim()
    );
    let many = envelope(&"<a/>".repeat(30_000));
    let other = envelope("<GetProfilesResponse/>");
    let cases = [
        ("", "document"),
        ("<a/>", "no SOAP body"),
        (entities.as_str(), "DTD"),
        (many.as_str(), "nodes limit"),
        (other.as_str(), "does not answer GetStreamUri"),
    ];
    for (text, part) in cases {
        let Err(Fault::Garbage(why)) = Ask::StreamUri("p", Transport::Rtsp).answer(text, uri) else {
            panic!("{text:.60}")
        };
        assert!(why.contains(part), "{why}");
    }
    assert!(parse(&"<a>".repeat(80_000)).is_err());
}

proptest! {
    #[test]
    fn foreign_text_is_survived(text in "\\PC*") {
        let _ = Ask::Profiles.answer(&text, profiles);
        let _ = Ask::DateTime.answer(&text, date_time);
    }

    #[test]
    fn damaged_answers_are_survived(at in 0usize..400, with in "[<>&;\"'/!\\[\\]A-Za-z0-9 ]{0,8}") {
        let mut text = envelope("<GetServicesResponse><Service a='1'><Namespace>http://www.onvif.org/ver10/media/wsdl</Namespace>\
            <XAddr><![CDATA[x]]>&#10;</XAddr></Service></GetServicesResponse>");
        let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let end = (at + with.len()).min(text.len());
        text.replace_range(at..end, &with);
        let _ = Ask::Services.answer(&text, media_service);
        let _ = crate::onvif::scan::matches(&text);
    }
}
