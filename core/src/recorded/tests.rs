use super::*;

#[test]
fn survives_of_detach_and_into_record() {
    for record in [
        Record::new(Value::NULL),
        Record::new("").key(""),
        Record::new("v")
            .key("k")
            .id("i")
            .header("a", "1")
            .header("a", Value::NULL)
            .timestamp(Timestamp::from_millis(7)),
    ] {
        let position = Position::new(PartitionId::ONLY, 4);
        let recorded =
            Recorded::of(&record, Some(position), Some(Timestamp::from_millis(9))).unwrap();
        assert_eq!(recorded.detach(), recorded);
        assert_eq!(recorded.len_bytes(), record.len_bytes());
        assert_eq!(recorded.is_tombstone(), record.value_bytes().is_none());
        assert_eq!(recorded.into_record(), record);
    }
}

#[test]
fn text_is_text_or_an_error_that_does_not_show_it() {
    let of = |record: Record| {
        let position = Position::new(PartitionId::ONLY, 4);
        Recorded::of(&record, Some(position), None).unwrap()
    };
    let record = of(Record::new("v")
        .key("k")
        .id("i")
        .header("h", "1")
        .header("h", "2"));
    assert_eq!(record.key_str().unwrap(), Some("k"));
    assert_eq!(record.value_str().unwrap(), Some("v"));
    assert_eq!(record.id_str().unwrap(), Some("i"));
    assert_eq!(record.header_str("h").unwrap(), Some("1"));
    let record = of(Record::new(Value::NULL).header("h", Value::NULL));
    assert_eq!(record.key_str().unwrap(), None);
    assert_eq!(record.value_str().unwrap(), None);
    assert_eq!(record.id_str().unwrap(), None);
    assert_eq!(record.header_str("h").unwrap(), None);
    assert_eq!(record.header_str("other").unwrap(), None);
    assert_eq!(of(Record::new("")).value_str().unwrap(), Some(""));

    let odd = *b"hush\xff";
    let record = of(Record::new(odd).key(odd).id(odd).header("h", odd));
    for (text, what) in [
        (record.key_str(), "key"),
        (record.value_str(), "value"),
        (record.id_str(), "id"),
        (record.header_str("h"), "value of a header"),
    ] {
        let error = text.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert_eq!(
            error.to_string(),
            format!("the {what} at 0@4 is not UTF-8 behind its byte 4; read it as bytes")
        );
    }
}

#[test]
fn many_in_one_buffer_are_pushed_or_none() {
    let buffer = Buffer::from(Bytes::from_static(b"abc"));
    let parts = |range| Parts {
        value: Some(range),
        ..Parts::default()
    };
    let mut out = Vec::new();
    let two = [parts(0..1), parts(1..3)];
    Recorded::extend_within(&mut out, &buffer, two.into_iter()).unwrap();
    let bad = [parts(0..1), parts(1..4)];
    assert!(Recorded::extend_within(&mut out, &buffer, bad.into_iter()).is_err());
    let values: Vec<_> = out.iter().map(Recorded::value).collect();
    assert_eq!(values, [&b"a"[..], b"bc"]);
    // The buffer is free for writing once no record lies in it.
    let buffer = buffer.try_into_mut().unwrap_err();
    drop(out);
    assert!(buffer.try_into_mut().is_err(), "a static one never is");
    let owned = Buffer::from(Bytes::from(vec![1, 2]));
    assert_eq!(&owned.try_into_mut().unwrap()[..], [1, 2]);
}

#[test]
fn ranges_outside_the_buffer_are_refused() {
    let buffer = Bytes::from_static(b"abc");
    let parts = |range| Parts {
        value: Some(range),
        ..Parts::default()
    };
    assert!(Recorded::within(buffer.clone(), parts(0..3)).is_ok());
    assert!(Recorded::within(buffer.clone(), parts(0..4)).is_err());
    #[expect(clippy::reversed_empty_ranges, reason = "that is the case under test")]
    let reversed = parts(2..1);
    assert!(Recorded::within(buffer, reversed).is_err());
}
