use std::path::Path;

use annals_core::ErrorKind;

use super::*;

#[test]
fn places() {
    let place = |url| Config::parse(url).unwrap().place;
    let dir = |path| Place::Directory(Path::new(path).to_owned());
    assert_eq!(place("file:data"), dir("data"));
    assert_eq!(place("file:./a b"), dir("./a b"));
    assert_eq!(place("file:/var/x"), dir("/var/x"));
    assert_eq!(place("file:///var/my%20x%25"), dir("/var/my x%"));
    assert_eq!(place("memory:"), Place::Memory(None));
    assert_eq!(place("memory:?"), Place::Memory(None));
    assert_eq!(place("memory:orders"), Place::Memory(Some("orders".into())));
}

#[test]
fn keys_and_units() {
    let config = Config::parse("file:x?segment=1MiB&chunk=8KiB&dedupe=10m&retention=30d").unwrap();
    assert_eq!(config.segment, 1 << 20);
    assert_eq!(config.chunk, 8 << 10);
    assert_eq!(config.dedupe, Dedupe::Window(Duration::from_secs(600)));
    let month = Duration::from_secs(30 * 24 * 3600);
    assert_eq!(config.retention, Retention::Age(month));
    let config = Config::parse("memory:?dedupe=forever&retention=10GiB").unwrap();
    assert_eq!(config.dedupe, Dedupe::Forever);
    assert_eq!(config.retention, Retention::Bytes(10 << 30));
    let config = Config::parse("memory:?dedupe=off&retention=forever").unwrap();
    assert_eq!(config, Config::new(Place::Memory(None)));
    for segment in ["65536", "65536B", "64KiB"] {
        let config = Config::parse(&format!("file:x?segment={segment}")).unwrap();
        assert_eq!(config.segment, 65536);
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (url, says) in [
        ("kafka:x", "file:PATH"),
        ("file:", "needs a directory"),
        ("file://host/x", "no host"),
        ("file:a%zz", "two hexadecimal digits"),
        ("memory://x", "no host"),
        ("memory:a/b", "'/'"),
        ("file:x?segmnt=1MiB", "segment"),
        ("file:x?segment=1MiB&segment=2MiB", "twice"),
        ("file:x?segment=64MB", "64MiB"),
        ("file:x?segment=2GiB", "1073741824"),
        ("file:x?chunk=1KiB", "4096"),
        ("file:x?dedupe=soon", "10m"),
        ("file:x?dedupe=0s", "one millisecond"),
        ("file:x?retention=0B", "one byte"),
        ("file:x?retention=9", "30d"),
        ("file:x?dedupe=10", "10m"),
    ] {
        let error = Config::parse(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(error.to_string().contains(says), "{url}: {error}");
    }
}
