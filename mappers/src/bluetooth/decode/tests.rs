//! Published vectors, each with its source, and bytes that nobody would publish.

use edge_model::device::bluetooth::Decoder;
use edge_model::reading::Value;
use proptest::prelude::*;

use super::*;

const ANY: Address = Address([0xa4, 0xc1, 0x38, 0x8d, 0x18, 0xb2]);

fn float(x: f64) -> Value {
    Value::Float(x)
}

fn int(i: i64) -> Value {
    Value::Int(i)
}

fn flag(on: bool) -> Value {
    Value::Bool(on)
}

fn text(t: &str) -> Value {
    Value::Text(t.to_owned())
}

#[track_caller]
fn fields(decoded: Result<Decoded, &'static str>, expected: &[(&str, Value)]) {
    let decoded = decoded.unwrap();
    for (name, value) in expected {
        let found = decoded.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let close = match (found, value) {
            (Some(Value::Float(a)), Value::Float(b)) => (a - b).abs() <= b.abs() * 1e-12,
            (found, value) => found == Some(value),
        };
        assert!(close, "{name}: {value:?} expected in {decoded:?}");
    }
}

/// The objects of BTHome: tests/test_parser_v2.py of github.com/Bluetooth-Devices/bthome-ble, Home Assistant's decoder,
/// which repeats the examples of bthome.io/format.
#[test]
fn bthome_objects() {
    let cases: &[(&str, &str, Value)] = &[
        ("4004138a01", "pressure", float(1008.83)),
        ("4005138a14", "illuminance", float(13460.67)),
        ("40065e1f", "mass", float(80.3)),
        ("40073e1d", "mass_lb", float(74.86)),
        ("4008ca06", "dew_point", float(17.38)),
        ("400960", "count", int(96)),
        ("400a138a14", "energy", float(1346.067)),
        ("400b021b00", "power", float(69.14)),
        ("400c020c", "voltage", float(3.074)),
        ("400d120c", "pm25", int(3090)),
        ("400e021c", "pm10", int(7170)),
        ("400f01", "generic", flag(true)),
        ("401100", "opening", flag(false)),
        ("402d01", "window", flag(true)),
        ("4012e204", "co2", int(1250)),
        ("40133301", "tvoc", int(307)),
        ("4014020c", "moisture", float(30.74)),
        ("403a04", "button", text("long_press")),
        ("403a80", "button", text("hold_press")),
        ("403c0103", "dimmer", int(-3)),
        ("403f020c", "rotation", float(307.4)),
        ("40400c00", "distance_mm", int(12)),
        ("40414e00", "distance", float(7.8)),
        ("40424e3400", "duration", float(13.39)),
        ("40434e34", "current", float(13.39)),
        ("40444e34", "speed", float(133.9)),
        ("40451101", "temperature", float(27.3)),
        ("404632", "uv_index", float(5.0)),
        ("40478756", "volume", float(2215.1)),
        ("4048dc87", "volume_ml", int(34_780)),
        ("4049dc87", "volume_flow_rate", float(34.78)),
        ("404a020c", "voltage", float(307.4)),
        ("404b138a14", "gas", float(1346.067)),
        ("404c41018a01", "gas", float(25_821.505)),
        ("404d12138a14", "energy", float(344_593.17)),
        ("404e87562a01", "volume", float(19_551.879)),
        ("404f87562a01", "water", float(19_551.879)),
        ("44505d396164", "timestamp", int(1_684_093_277)),
        ("44518756", "acceleration", float(22.151)),
        ("44528756", "gyroscope", float(22.151)),
        ("44530c48656c6c6f20576f726c6421", "text", text("Hello World!")),
        ("44540c48656c6c6f20576f726c6421", "raw", Value::Bytes(b"Hello World!".to_vec())),
        ("405587562a01", "volume_storage", float(19_551.879)),
        ("4056e803", "conductivity", int(1000)),
        ("4057ea", "temperature", int(-22)),
        ("4058ea", "temperature", float(-7.7)),
        ("4059ea", "count", int(-22)),
        ("405aeaea", "count", int(-5398)),
        ("405bea0234ea", "count", int(-365_690_134)),
        ("405c02fbffff", "power", float(-12.78)),
        ("405d02ea", "current", float(-5.63)),
        ("405e3f755f11d5", "direction", float(300.15)),
        ("405e3f755f11d5", "precipitation", int(54_545)),
        ("406001", "channel", int(1)),
    ];
    for (packet, name, value) in cases {
        fields(bthome::decode(ANY, &[], &hex(packet).unwrap()), &[(name, value.clone())]);
    }
}

/// From the same file.
#[test]
fn bthome_packets() {
    let decode = |packet: &str| bthome::decode(ANY, &[], &hex(packet).unwrap());
    let decoded = decode("40000901 5d 025d09 03b718".replace(' ', "").as_str()).unwrap();
    assert_eq!(decoded.packet, Some(9));
    fields(Ok(decoded), &[("battery", int(93)), ("temperature", float(23.97)), ("humidity", float(63.27))]);
    let several = [("temperature", 25.06), ("temperature_2", 25.11), ("temperature_3", 22.55), ("humidity_2", 60.71)];
    let several = several.map(|(n, x)| (n, float(x)));
    fields(decode("4002ca0902cf0902cf0803b71803b717015d"), &several);
    let buttons = [("button", text("none")), ("button_2", text("press")), ("button_3", text("triple_press"))];
    fields(decode("403a003a013a03"), &buttons);
    // The sender's address in the packet, and what follows an object nobody knows.
    fields(decode("42b2188d38c1a404138a01"), &[("pressure", float(1008.83))]);
    assert_eq!(decode("40015dfe5d0903b718").unwrap().fields, [("battery".to_owned(), int(93))]);
    assert_eq!(decode("4002ca0903bf").unwrap().fields.len(), 1, "the cut-off humidity is left out");
    assert_eq!(decode("44530187").unwrap().fields, []);
    assert!(decode("e10200").is_err() && decode("00").is_err() && decode("").is_err());
}

/// The encrypted vectors of the same file and of bthome.io/encryption.
#[test]
fn bthome_encrypted() {
    let key = hex("231d39c1d7cc1ab1aee224cd096db932").unwrap();
    let sender = Address::parse("54:48:E6:8F:80:A5").unwrap();
    let expected = [("temperature", float(25.06)), ("humidity", float(50.55))];
    let packet = hex("41a47266c95f730011223378237214").unwrap();
    let decoded = bthome::decode(sender, &key, &packet).unwrap();
    assert_eq!((decoded.packet, decoded.sealed), (Some(0x3322_1100), true));
    fields(Ok(decoded), &expected);
    // The packet carries its sender's address: whoever relays it does not matter.
    fields(bthome::decode(ANY, &key, &hex("43a5808fe64854f196c06ffb4900112233f08ecbde").unwrap()), &expected);
    let shelly = hex("90bffd73cb6b26ef58a7a8eba9232036").unwrap();
    let pressed = hex("450aeb84467f85ba010000318878 8c".replace(' ', "").as_str()).unwrap();
    let from = Address::parse("B4:35:22:F5:3D:A4").unwrap();
    assert!(bthome::decode(from, &shelly, &pressed).unwrap().fields.iter().any(|(n, _)| n == "button"));

    assert_eq!(bthome::decode(ANY, &key, &packet), Err("encrypted with another key"));
    assert!(bthome::decode(sender, &[], &packet).unwrap_err().contains("not set"));
    assert!(bthome::decode(sender, &key, &hex("41ba0db07aeef600").unwrap()).unwrap_err().contains("cut off"));
    let plain = bthome::decode(ANY, &key, &hex("4004138a01").unwrap());
    assert!(plain.unwrap_err().contains("plain"), "nobody can slip in unsealed values");
}

/// docs.ruuvi.com, "Data format 5 (RAWv2)", test vectors: valid data, maximum, minimum and invalid values.
#[test]
fn ruuvi_rawv2() {
    let all = |t: f64, p: i64, h: f64, [x, y, z]: [f64; 3], tx: i64, v: f64, moved: i64, number: i64| {
        [
            ("temperature", float(t)),
            ("pressure", int(p)),
            ("humidity", float(h)),
            ("acceleration_x", float(x)),
            ("acceleration_y", float(y)),
            ("acceleration_z", float(z)),
            ("tx_power", int(tx)),
            ("voltage", float(v)),
            ("movement_counter", int(moved)),
            ("sequence", int(number)),
        ]
    };
    let decode = |packet: &str| ruuvi::decode(&hex(packet).unwrap());
    let valid = decode("0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F");
    assert_eq!(valid.clone().unwrap().packet, Some(205));
    fields(valid, &all(24.3, 100_044, 53.49, [0.004, -0.004, 1.036], 4, 2.977, 66, 205));
    let largest = all(163.835, 115_534, 163.835, [32.767; 3], 20, 3.646, 254, 65_534);
    fields(decode("057FFFFFFEFFFE7FFF7FFF7FFFFFDEFEFFFECBB8334C884F"), &largest);
    let smallest = all(-163.835, 50_000, 0.0, [-32.767; 3], -40, 1.6, 0, 0);
    fields(decode("058001000000008001800180010000000000CBB8334C884F"), &smallest);
    assert_eq!(decode("058000FFFFFFFF800080008000FFFFFFFFFFFFFFFFFFFFFF").unwrap(), Decoded::default());
    assert!(decode("0312").is_err() && decode("0512FC").is_err() && decode("").is_err());
}

/// Apple's "Proximity Beacon Specification" gives the layout; the UUID is that of Apple's AirLocate sample.
#[test]
fn ibeacons() {
    let packet = hex("0215e2c56db5dffb48d2b060d0f5a71096e000010203c5").unwrap();
    let uuid = text("e2c56db5-dffb-48d2-b060-d0f5a71096e0");
    let expected = [("uuid", uuid), ("major", int(1)), ("minor", int(515)), ("measured_power", int(-59))];
    fields(Ok(ibeacon::decode(&packet).unwrap()), &expected);
    assert_eq!(ibeacon::decode(&packet[..22]), None);
    assert_eq!(ibeacon::decode(&hex("1005031c").unwrap()), None, "Apple's other packets are no beacons");
}

/// github.com/google/eddystone: the layouts of eddystone-uid, eddystone-url (with its table of endings) and eddystone-tlm.
#[test]
fn eddystone_frames() {
    let decode = |packet: &str| eddystone::decode(&hex(packet).unwrap());
    let uid = decode("00e700010203040506070809 0a0b0c0d0e0f 0000".replace(' ', "").as_str());
    let expected = [("namespace", "00010203040506070809"), ("instance", "0a0b0c0d0e0f")].map(|(n, v)| (n, text(v)));
    fields(uid.clone(), &expected);
    fields(uid, &[("tx_power", int(-25))]);
    fields(decode("10ee0367 6f6f2e676c2f 53".replace(' ', "").as_str()), &[("url", text("https://goo.gl/S"))]);
    fields(
        decode("10ee01657861 6d706c6507 6100".replace(' ', "").as_str()),
        &[("url", text("https://www.example.coma.com/"))],
    );
    let tlm =
        [("voltage", float(3.0)), ("temperature", float(-2.5)), ("advertisements", int(258)), ("uptime", float(6.5))];
    fields(decode("20000bb8fd800000010200000041"), &tlm);
    assert_eq!(decode("2000000080000000010200000041").unwrap().fields.len(), 2, "no voltage, no temperature");
    for packet in ["", "00e7", "10ee", "10ee0461", "10ee0320", "2001", "30", "20000bb8"] {
        assert!(decode(packet).is_err(), "{packet}");
    }
}

/// test_atc_parser.py of github.com/custom-components/ble_monitor: advertisements of real thermometers.
#[test]
fn atc1441_and_pvvx() {
    let decode = |packet: &str| atc::decode(&hex(packet).unwrap());
    let atc1441 = decode("a4c1380283f400a22f5f0bf819");
    assert_eq!(atc1441.clone().unwrap().packet, Some(25));
    let expected =
        [("temperature", float(16.2)), ("humidity", int(47)), ("voltage", float(3.064)), ("battery", int(95))];
    fields(atc1441, &expected);
    let expected =
        [("temperature", float(17.05)), ("humidity", float(44.57)), ("voltage", float(2.998)), ("battery", int(88))];
    fields(decode("f4830238c1a4a9066911b60b58f70d"), &expected);
    fields(decode("8b376338c1a4ce0913107f0b521204"), &[("temperature", float(25.1)), ("switch", flag(false))]);
    assert!(decode("f4830238c1a4").is_err());
}

/// tests/test_parser.py of github.com/Bluetooth-Devices/xiaomi-ble, Home Assistant's decoder: advertisements of real devices.
#[test]
fn mibeacons() {
    let decode = |address: &str, key: &str, packet: &str| {
        xiaomi::decode(Address::parse(address).unwrap(), &hex(key).unwrap(), &hex(packet).unwrap())
    };
    let both = |t: f64, h: f64| [("temperature", float(t)), ("humidity", float(h))];
    fields(decode("58:2D:34:35:93:21", "", "5020aa01da219335342d580d1004fe004802"), &both(25.4, 58.4));
    fields(decode("A4:C1:38:B4:94:4C", "", "50305b05034c94b438c1a40d10041001ea01"), &both(27.2, 49.0));
    let plant = |packet: &str, name: &str, value: Value| {
        fields(decode("C4:7C:8D:6A:3E:7A", "", packet), &[(name, value)]);
    };
    plant("7120980012f34f6b8d7cc40d041002c400", "temperature", float(19.6));
    plant("71209800687a3e6a8d7cc40d0910025702", "conductivity", int(599));
    plant("71209800477a3e6a8d7cc40d08100140", "moisture", int(64));

    let (cgg1, lywsd, smoke) =
        ("814aac74c4f17b6c1581e1ab87816b99", "e9ea895fac7cca6d30532432a516f3a8", "5b51a7c91cde6707c9ef18dfda143a58");
    let sealed = decode("5A:58:2D:34:12:5F", cgg1, "5858480b685f12342d585a0b1841e2aa000e00a4964fb5");
    assert!(sealed.as_ref().unwrap().sealed);
    fields(sealed, &[("humidity", float(59.6))]);
    fields(
        decode("A4:C1:38:02:83:F4", lywsd, "58585b0550f4830238c1a495ef58763c26000097e2abb5"),
        &[("humidity", float(46.7))],
    );
    fields(
        decode("2C:11:65:25:70:04", "b2cf9a553d53571b5657defd582d676e", "48590312a41b776e7c96add7000000f2bf545b"),
        &[("humidity", float(45.0))],
    );
    fields(
        decode("54:EF:44:E3:9C:BC", smoke, "5859970966bc9ce344ef5401081205000000715ebe90"),
        &[("smoke", flag(true))],
    );
    let wrong = decode("54:EF:44:E3:9C:BC", cgg1, "5859970966bc9ce344ef5401081205000000715ebe90");
    assert_eq!(wrong, Err("encrypted with another key"));

    // Version 3, without a tag.
    let (dimmer, packet) = ("b853075158487ca39a5b5ea9", "5830b603d28b98c54124f8c3491476757e00000099");
    let expected = [("steps", int(1)), ("button", int(0)), ("press", int(3))];
    fields(decode("F8:24:41:C5:98:8B", dimmer, packet), &expected);
    assert!(decode("F8:24:41:C5:98:8B", "b853075158487aa39a5b5ea9", packet).is_err());

    // A packet that only says: here I am.
    assert_eq!(decode("C4:7C:8D:6B:4F:F3", "", "3120980012f34f6b8d7cc40d").unwrap().fields, []);
    for packet in ["", "5020aa01", "5020aa01da2193", "d020aa01da", "5010aa01da", "58485b0550f483"] {
        assert!(decode("58:2D:34:35:93:21", "", packet).is_err(), "{packet}");
    }
}

#[test]
fn sections_find_their_decoder() {
    let ruuvi = Section::Manufacturer(ruuvi::COMPANY, hex("0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F").unwrap());
    let bthome = Section::Service(bthome::SERVICE, hex("4004138a01").unwrap());
    for decoder in [Decoder::Auto, Decoder::Ruuvi] {
        assert!(decode(decoder, ANY, &[], &ruuvi).is_some_and(|d| d.is_ok()));
    }
    assert_eq!(decode(Decoder::Bthome, ANY, &[], &ruuvi), None);
    assert_eq!(decode(Decoder::Raw, ANY, &[], &bthome), None);
    assert!(decode(Decoder::Auto, ANY, &[], &bthome).is_some_and(|d| d.is_ok()));
    assert_eq!(decode(Decoder::Auto, ANY, &[], &Section::Manufacturer(1, vec![5])), None);
}

fn section() -> impl Strategy<Value = Section> {
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    let service = prop::sample::select(vec![bthome::SERVICE, xiaomi::SERVICE, atc::SERVICE, eddystone::SERVICE]);
    let company = prop::sample::select(vec![ruuvi::COMPANY, ibeacon::COMPANY]);
    prop_oneof![
        (service, bytes.clone()).prop_map(|(s, b)| Section::Service(s, b)),
        (company, bytes).prop_map(|(c, b)| Section::Manufacturer(c, b)),
    ]
}

/// The first byte of each format, so that what follows is looked at.
fn likely() -> impl Strategy<Value = Section> {
    let heads: Vec<(Section, &[u8])> = vec![
        (Section::Service(bthome::SERVICE, Vec::new()), &[0x40, 0x41, 0x42, 0x43]),
        (Section::Service(xiaomi::SERVICE, Vec::new()), &[0x40, 0x48, 0x50, 0x58, 0x70]),
        (Section::Service(eddystone::SERVICE, Vec::new()), &[0x00, 0x10, 0x20]),
        (Section::Manufacturer(ruuvi::COMPANY, Vec::new()), &[5]),
    ];
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    (prop::sample::select(heads), any::<prop::sample::Index>(), bytes).prop_map(
        |((section, heads), index, mut rest)| {
            rest.insert(0, *index.get(heads));
            match section {
                Section::Service(s, _) => Section::Service(s, rest),
                Section::Manufacturer(c, _) => Section::Manufacturer(c, rest),
            }
        },
    )
}

proptest! {
    /// Whatever is on the air: no panic, no infinite number, no name twice.
    #[test]
    fn anything_may_be_on_the_air(section in prop_oneof![section(), likely()], key in prop_oneof![
        Just(Vec::new()), prop::collection::vec(any::<u8>(), 16), prop::collection::vec(any::<u8>(), 12),
    ]) {
        if let Some(Ok(decoded)) = decode(Decoder::Auto, ANY, &key, &section) {
            let mut names: Vec<&str> = decoded.fields.iter().map(|(n, _)| n.as_str()).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            prop_assert_eq!(names.len(), count);
            for (name, value) in &decoded.fields {
                prop_assert!(value.as_f64().is_none_or(f64::is_finite), "{}: {:?}", name, value);
            }
        }
    }

    /// A single flipped bit of a sealed packet is never taken for a value.
    #[test]
    fn sealed_packets_cannot_be_changed(bit in 0usize..15 * 8) {
        let key = hex("231d39c1d7cc1ab1aee224cd096db932").unwrap();
        let sender = Address::parse("54:48:E6:8F:80:A5").unwrap();
        let mut packet = hex("41a47266c95f730011223378237214").unwrap();
        packet[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(bthome::decode(sender, &key, &packet).is_err());
    }

    #[test]
    fn hexadecimal_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(hex(&to_hex(&bytes)), Some(bytes));
    }

    #[test]
    fn twos_complement_is_rusts(n in any::<i64>(), length in 1usize..=8) {
        let shift = 64 - 8 * u32::try_from(length).unwrap();
        let fits = n >> shift;
        prop_assert_eq!(signed(fits.cast_unsigned(), length), fits);
        let bytes = fits.to_le_bytes();
        prop_assert_eq!(signed(little(&bytes[..length]), length), fits);
        let bytes = fits.to_be_bytes();
        prop_assert_eq!(signed(big(&bytes[8 - length..]), length), fits);
    }
}
