use std::time::Duration;

use super::Address;
use crate::capability::Retention;
use crate::error::{ErrorKind, Result};

fn parse(text: &str) -> Result<Address> {
    text.parse()
}

#[test]
fn takes_every_form_apart() {
    for (text, scheme, hosts, path) in [
        ("file:./data", "file", None, "./data"),
        ("file:/var/lib/log", "file", None, "/var/lib/log"),
        ("file:///var/lib/log", "file", Some(""), "/var/lib/log"),
        ("file:a%20b%3F", "file", None, "a b?"),
        ("memory:", "memory", None, ""),
        ("memory:shared", "memory", None, "shared"),
        ("KAFKA://a:9092,b:9092", "kafka", Some("a:9092,b:9092"), ""),
        ("amqp://[::1]:5672/v", "amqp", Some("[::1]:5672"), "/v"),
        ("file:a+b@c", "file", None, "a+b@c"),
    ] {
        let address = parse(text).unwrap();
        assert_eq!(address.scheme(), scheme, "{text}");
        assert_eq!(address.hosts(), hosts, "{text}");
        assert_eq!(address.path(), path, "{text}");
    }
    let address = parse("amqp://app%40x:p%2Fw%40@host/").unwrap();
    assert_eq!(address.user(), Some("app@x"));
    assert_eq!(address.password(), Some("p/w@"));
}

#[test]
fn refuses_what_is_malformed_without_repeating_it() {
    for (text, why) in [
        ("", "no scheme"),
        ("hunter2", "no scheme"),
        ("./data:hunter2", "no scheme"),
        ("1file:hunter2", "no scheme"),
        ("amqp://u:hunter2@x@host", "'@'"),
        ("amqp://u:hunt/er2@host", "'@'"),
        ("amqp://u:hunter2?x@host", "'@'"),
        ("amqp://u:hunter2#@host", "fragment"),
        ("amqp://u:hunter2%zz@host", "'%'"),
        ("amqp://u:hunter2%é@host", "'%'"),
        ("amqp://u:hunter2%@host", "'%'"),
        ("amqp://u:hunter2@ho st", "' '"),
        ("amqp://u:hunter2%FF@host", "not UTF-8"),
        ("file:hunter2%00", "zero byte"),
        ("file:a?hunter2", "without a value"),
        ("file:a?=hunter2", "without a value"),
        ("file:a?k=hunter2&k=hunter2", "\"k\" is given twice"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(why), "{text}: {shown}");
        assert!(!shown.contains("hunt") && !shown.contains("er2"), "{shown}");
    }
}

#[test]
fn shows_neither_password_nor_values() {
    for (text, shown) in [
        ("amqps://app:hunter2@h:1/v", "amqps://app:***@h:1/v"),
        ("amqps://app@h", "amqps://app@h"),
        ("amqps:app:hunter2@h", "amqps:***@h"),
        (
            "kafka://h?pasword=hunter2&x=1",
            "kafka://h?pasword=***&x=***",
        ),
        ("file:./data", "file:./data"),
    ] {
        let address = parse(text).unwrap();
        assert_eq!(address.to_string(), shown);
        assert_eq!(format!("{address:?}"), format!("Address({shown})"));
        assert!(!format!("{:?}", address.options()).contains("hunter2"));
    }
}

#[test]
fn options_are_typed_and_leftovers_are_refused() {
    let mut options = parse("x:?a=true&b=-3&c=1GiB&d=250ms&e=two&f=t&g=s&z=hunter2")
        .unwrap()
        .options();
    assert_eq!(options.flag("a").unwrap(), Some(true));
    assert_eq!(options.integer::<i8>("b").unwrap(), Some(-3));
    assert_eq!(options.bytes("c").unwrap(), Some(1 << 30));
    assert_eq!(
        options.duration("d").unwrap(),
        Some(Duration::from_millis(250))
    );
    assert_eq!(options.word("e", &["one", "two"]).unwrap(), Some("two"));
    assert_eq!(options.text("f").as_deref(), Some("t"));
    assert_eq!(options.secret("g").as_deref(), Some("s"));
    let error = options.finish().unwrap_err();
    assert_eq!(
        error.to_string(),
        "connect: the address has unknown options: \"z\"; there are a, b, c, d, e, f, g"
    );
}

#[test]
fn values_of_the_wrong_form_are_refused_and_say_the_right_one() {
    let options = |value: &str| parse(&format!("x:?k={value}")).unwrap().options();
    for bad in ["yes", "1", "", "True"] {
        assert!(options(bad).flag("k").is_err(), "{bad}");
    }
    for bad in ["", "256", "-1", "+1", "1.0", "x"] {
        assert!(options(bad).integer::<u8>("k").is_err(), "{bad}");
    }
    for bad in ["", "MiB", "1MB", "1 MiB", "-1", "99999999999TiB"] {
        assert!(options(bad).bytes("k").is_err(), "{bad}");
    }
    for bad in ["", "10", "s", "1.5s", "-1s", "999999999999999999d"] {
        assert!(options(bad).duration("k").is_err(), "{bad}");
    }
    for bad in [
        "",
        "30",
        "0",
        "30 d",
        "30D",
        "10GB",
        "Forever",
        "-1d",
        "99999999999TiB",
    ] {
        assert!(options(bad).retention("k").is_err(), "{bad}");
    }
    for (text, kept) in [
        ("forever", Retention::Forever),
        ("30d", Retention::Age(Duration::from_secs(30 * 86_400))),
        ("5ms", Retention::Age(Duration::from_millis(5))),
        ("512B", Retention::Bytes(512)),
        ("2TiB", Retention::Bytes(2 << 40)),
    ] {
        assert_eq!(options(text).retention("k").unwrap(), Some(kept), "{text}");
    }
    let error = options("three").word("k", &["one", "two"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "connect: the option k=three is not one of one, two"
    );
}
