//! SNMP agents: net-snmp's `snmpd` in all three versions, and traps and informs of `snmptrap`.

use edge_model::Kind;
use edge_model::device::status::DeviceStatus;
use edge_model::reading::Value;
use edge_tests::field::{Field, reported, twin};
use edge_tests::ports;
use edge_tests::snmpd::{self, Snmpd};
use serde_json::{Value as Json, json};

fn model() -> Json {
    let property = |name: &str, kind: &str, access: &str, data: Json| json!({"name": name, "type": kind, "accessMode": access, "visitors": {"protocolName": "snmp", "configData": data}});
    json!({"protocol": "snmp", "properties": [
        property("uptime", "DOUBLE", "ReadOnly", json!({"oid": "1.3.6.1.2.1.1.3.0", "scale": 0.01})),
        property("name", "STRING", "ReadOnly", json!({"oid": "1.3.6.1.2.1.1.5.0"})),
        property("services", "INT", "ReadOnly", json!({"oid": ".1.3.6.1.2.1.1.7.0"})),
        property("kind", "STRING", "ReadOnly", json!({"oid": "1.3.6.1.2.1.1.2.0"})),
        property("contact", "STRING", "ReadWrite", json!({"oid": "1.3.6.1.2.1.1.4.0"})),
        property("missing", "INT", "ReadOnly", json!({"oid": "1.3.6.1.2.1.1.99.0"})),
        property("interfaces", "STRING", "ReadOnly", json!({"oid": "1.3.6.1.2.1.2.2.1.2", "walk": true})),
        property("restarts", "INT", "ReadOnly", json!({"oid": "1.3.6.1.6.3.1.1.5.1", "trap": true})),
        property("alarm", "STRING", "ReadOnly", json!({"oid": "1.3.6.1.4.1.8072.9.1", "trap": true})),
        property("temperature", "DOUBLE", "ReadOnly", json!({"oid": "1.3.6.1.4.1.8072.9.2.0", "trap": true, "scale": 0.1})),
    ]})
}

fn device(link: Json, properties: &[&str]) -> Json {
    // A loaded machine is no dead agent.
    let mut data = json!({"host": "127.0.0.1", "timeout": 20_000});
    for (key, value) in link.as_object().into_iter().flatten() {
        data[key] = value.clone();
    }
    json!({
        "deviceModelRef": {"name": "agent"},
        "protocol": {"protocolName": "snmp", "configData": data},
        "properties": properties.iter().map(|name| json!({"name": name, "collectCycle": 100})).collect::<Vec<_>>(),
    })
}

const POLLED: [&str; 7] = ["uptime", "name", "services", "kind", "contact", "missing", "interfaces"];

fn quality<'a>(status: &'a DeviceStatus, property: &str) -> &'a str {
    twin(status, property).map_or("", |t| &t.reported.metadata.quality)
}

/// Reads everything and writes the contact.
async fn reads_and_writes(field: &Field, name: &str, link: Json) {
    field.apply(Kind::Device, name, device(link, &POLLED)).await;
    let status = field.status_when(name, "read", |s| reported(s, "interfaces").contains("lo")).await;
    assert_eq!((reported(&status, "name"), reported(&status, "services")), ("bench", "72"), "{name}");
    assert!(reported(&status, "kind").starts_with("1.3.6.1.4.1.8072.3.2"), "{status:?}");
    let uptime: f64 = reported(&status, "uptime").parse().unwrap();
    assert!((0.0..100_000.0).contains(&uptime), "{uptime}");
    let interfaces: Json = serde_json::from_str(reported(&status, "interfaces")).unwrap();
    assert_eq!(interfaces["1"], "lo", "{interfaces}");
    assert_eq!(quality(&status, "missing"), "refused", "one that is not there spoils no other");
    assert_eq!(status.state, "online");
    let value = format!("somebody of {name}");
    let reading = field.commands.set("default", name, "contact", json!(value)).await.unwrap();
    assert_eq!(reading.value, Some(Value::Text(value)));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_1_and_2c_read_walk_and_write() {
    let agent = Snmpd::start("");
    let field = Field::start();
    field.apply(Kind::DeviceModel, "agent", model()).await;
    for version in ["v1", "v2c"] {
        // Requests of two values: the chunks matter, too.
        let link = json!({"port": agent.port(), "version": version, "writeCommunity": "private", "maxValues": 2});
        reads_and_writes(&field, version, link).await;
    }
    // Who may only read is told so.
    field.apply(Kind::Device, "reader", device(json!({"port": agent.port()}), &["contact"])).await;
    field.status_when("reader", "read", |s| quality(s, "contact") == "good").await;
    let refused = field.commands.set("default", "reader", "contact", json!("x")).await.unwrap_err().to_string();
    assert!(refused.contains("noAccess"), "{refused}");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_authenticates_and_encrypts() {
    let users = "\
createUser plain
rwuser plain noauth
createUser signed SHA password1
rwuser signed auth
createUser sealed SHA password1 AES password2
rwuser sealed priv
createUser old MD5 password1 DES password2
rwuser old priv
createUser long SHA-256 password1 AES-256 password2
rwuser long priv";
    let agent = Snmpd::start(users);
    let field = Field::start();
    field.apply(Kind::DeviceModel, "agent", model()).await;
    let v3 = |user: &str, more: Json| {
        let mut link = json!({"port": agent.port(), "version": "v3", "user": user});
        for (key, value) in more.as_object().into_iter().flatten() {
            link[key] = value.clone();
        }
        link
    };
    let sealed = |auth: &str, privacy: &str| json!({"auth": auth, "authPassword": "password1", "privacy": privacy, "privacyPassword": "password2"});
    reads_and_writes(&field, "plain", v3("plain", json!({}))).await;
    reads_and_writes(&field, "signed", v3("signed", json!({"auth": "SHA", "authPassword": "password1"}))).await;
    reads_and_writes(&field, "sealed", v3("sealed", sealed("SHA", "AES"))).await;
    reads_and_writes(&field, "old", v3("old", sealed("MD5", "DES"))).await;
    let mut wrong = v3("sealed", sealed("SHA", "AES"));
    (wrong["authPassword"], wrong["timeout"]) = (json!("password9"), json!(1_000));
    field.apply(Kind::Device, "wrong", device(wrong, &["name"])).await;
    let status = field.status_when("wrong", "refused", |s| s.state == "offline").await;
    assert!(quality(&status, "name") != "good", "{status:?}");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_vanishes_is_offline_and_comes_back() {
    let mut agent = Snmpd::start("createUser sealed SHA password1 AES password2\nrwuser sealed priv");
    let field = Field::start();
    field.apply(Kind::DeviceModel, "agent", model()).await;
    let link = json!({"port": agent.port(), "timeout": 1_000, "retries": 0});
    field.apply(Kind::Device, "v2c", device(link.clone(), &["name"])).await;
    let mut sealed = link;
    for (key, value) in [
        ("version", "v3"),
        ("user", "sealed"),
        ("auth", "SHA"),
        ("authPassword", "password1"),
        ("privacy", "AES"),
        ("privacyPassword", "password2"),
    ] {
        sealed[key] = json!(value);
    }
    field.apply(Kind::Device, "v3", device(sealed, &["name"])).await;
    for name in ["v2c", "v3"] {
        field.status_when(name, "read", |s| reported(s, "name") == "bench").await;
    }
    agent.kill();
    for name in ["v2c", "v3"] {
        let status = field.status_when(name, "offline", |s| s.state == "offline").await;
        assert_eq!(reported(&status, "name"), "bench", "the last value stays");
    }
    agent.launch();
    for name in ["v2c", "v3"] {
        field.status_when(name, "back", |s| s.state == "online" && quality(s, "name") == "good").await;
    }
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_change_properties_at_once() {
    let agent = Snmpd::start("");
    let port = ports::free();
    let field = Field::start();
    field.apply(Kind::DeviceModel, "agent", model()).await;
    let link = |community: &str| json!({"port": agent.port(), "community": community, "trapListen": port.address().to_string()});
    // Two devices share the socket; the second has another community, so that these traps are not its.
    let traps = ["name", "restarts", "alarm", "temperature"];
    field.apply(Kind::Device, "one", device(link("public"), &traps)).await;
    field.apply(Kind::Device, "two", device(link("private"), &traps)).await;
    for name in ["one", "two"] {
        field.status_when(name, "read", |s| reported(s, "name") == "bench").await;
    }
    let at = port.number();
    // Version 2c: up time, kind, values.
    let send = move |version: &'static str, arguments: &'static [&'static str]| {
        tokio::task::spawn_blocking(move || snmpd::trap(at, version, arguments))
    };
    send("2c", &["", "1.3.6.1.6.3.1.1.5.1"]).await.unwrap();
    field.status_when("one", "restarted", |s| reported(s, "restarts") == "1").await;
    // Version 1: enterprise, agent, generic, specific, up time. Its cold start is the same kind.
    send("1", &["1.3.6.1.4.1.8072.9", "127.0.0.1", "0", "0", "7"]).await.unwrap();
    field.status_when("one", "restarted twice", |s| reported(s, "restarts") == "2").await;
    // An inform is confirmed; what it carries are values.
    let alarm: &[&str] = &[
        "-Ci",
        "",
        "1.3.6.1.4.1.8072.9.1",
        "1.3.6.1.4.1.8072.9.2.0",
        "i",
        "215",
        "1.3.6.1.4.1.8072.9.3.0",
        "s",
        "hot",
    ];
    send("2c", alarm).await.unwrap();
    let status = field.status_when("one", "alarmed", |s| reported(s, "temperature") == "21.5").await;
    let said: Json = serde_json::from_str(reported(&status, "alarm")).unwrap_or_else(|e| panic!("{e}: {status:?}"));
    assert_eq!((&said["1.3.6.1.4.1.8072.9.2.0"], &said["1.3.6.1.4.1.8072.9.3.0"]), (&json!(215), &json!("hot")));
    let two = field.status("two");
    assert_eq!((reported(&two, "restarts"), reported(&two, "temperature")), ("", ""), "not the other's: {two:?}");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_of_version_3_are_believed_only_with_the_keys_of_the_device() {
    let agent = Snmpd::start(
        "createUser sealed SHA password1 AES password2\nrwuser sealed priv\n\
         createUser long SHA-256 password1 AES-256 password2\nrwuser long priv\n\
         createUser old MD5 password1 DES password2\nrwuser old priv",
    );
    let port = ports::free();
    let field = Field::start();
    field.apply(Kind::DeviceModel, "agent", model()).await;
    let at = port.number();
    let link = |user: &str, auth: &str, privacy: &str| {
        json!({"port": agent.port(), "version": "v3", "user": user, "auth": auth, "authPassword": "password1",
            "privacy": privacy, "privacyPassword": "password2", "trapListen": port.address().to_string()})
    };
    let users = [("sealed", "SHA", "AES"), ("long", "SHA256", "AES256"), ("old", "MD5", "DES")];
    for (user, auth, privacy) in users {
        let properties = ["name", "restarts", "alarm", "temperature"];
        field.apply(Kind::Device, user, device(link(user, auth, privacy), &properties)).await;
        field.status_when(user, "read", |s| reported(s, "name") == "bench").await;
    }
    let send = move |more: &[&'static str], who: [&'static str; 4], rest: &'static [&'static str]| {
        let [user, auth, privacy, password] = who;
        let options = ["-l", "authPriv", "-u", user, "-a", auth, "-A", password, "-x", privacy, "-X", "password2"];
        let options = [more, &options].concat();
        tokio::task::spawn_blocking(move || snmpd::trap_v3(at, &options, rest))
    };
    let (engine, inform) = (["-e", "0x8000000005aabbcc", "-Z", "5,500"], ["-Ci"]);
    let (restart, hot) = (
        &["", "1.3.6.1.6.3.1.1.5.1"],
        &["", "1.3.6.1.4.1.8072.9.1", "1.3.6.1.4.1.8072.9.2.0", "i", "215", "1.3.6.1.4.1.8072.9.3.0", "s", "hot"],
    );
    // What must not count: a wrong password, an unknown user, version 2c without any. Of an inform the sender hears of it.
    send(&engine, ["sealed", "SHA", "AES", "password9"], restart).await.unwrap();
    send(&engine, ["nobody", "SHA", "AES", "password1"], restart).await.unwrap();
    tokio::task::spawn_blocking(move || snmpd::trap(at, "2c", restart)).await.unwrap();
    assert!(
        !send(&inform, ["sealed", "SHA", "AES", "password9"], restart).await.unwrap(),
        "confirmed with a wrong password"
    );
    assert!(!send(&inform, ["nobody", "SHA", "AES", "password1"], restart).await.unwrap(), "confirmed to nobody");
    for (user, auth, privacy) in [("sealed", "SHA", "AES"), ("long", "SHA-256", "AES-256"), ("old", "MD5", "DES")] {
        let who = [user, auth, privacy, "password1"];
        assert!(send(&engine, who, restart).await.unwrap());
        let status = field.status_when(user, "restarted", |s| !reported(s, "restarts").is_empty()).await;
        assert_eq!(reported(&status, "restarts"), "1", "{user}: only the true one counts");
        assert!(send(&inform, who, hot).await.unwrap(), "{user}: not confirmed");
        let status = field.status_when(user, "alarmed", |s| reported(s, "temperature") == "21.5").await;
        let said: Json = serde_json::from_str(reported(&status, "alarm")).unwrap_or_else(|e| panic!("{e}: {status:?}"));
        assert_eq!(said["1.3.6.1.4.1.8072.9.3.0"], "hot");
    }
    // An older one is a recording: this engine has been here with a later clock.
    let before = ["-e", "0x8000000005aabbcc", "-Z", "4,1"];
    send(&before, ["sealed", "SHA", "AES", "password1"], restart).await.unwrap();
    let later = ["-e", "0x8000000005aabbcc", "-Z", "6,1"];
    send(&later, ["sealed", "SHA", "AES", "password1"], restart).await.unwrap();
    let status = field.status_when("sealed", "restarted again", |s| reported(s, "restarts") != "1").await;
    assert_eq!(reported(&status, "restarts"), "2", "the recording was taken");
    field.stop().await;
}
