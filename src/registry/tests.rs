use annals_core::{Error, ErrorKind};

use super::Registry;

async fn refused(registry: &Registry, url: &str) -> Error {
    let error = registry.connect(url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    error
}

fn one() -> Registry {
    Registry::empty().with("here", |_| async {
        Err(Error::not_found("nobody is here"))
    })
}

#[tokio::test]
async fn an_unknown_scheme_names_those_that_there_are_and_the_feature_to_enable() {
    for (url, said) in [
        (
            "ftp://host",
            "connect: the scheme \"ftp\" is unknown; there are here",
        ),
        (
            "kafka://host",
            "connect: the scheme \"kafka\" is not yet available; there are here",
        ),
        (
            "file:data",
            "connect: the scheme \"file\" needs the feature \"embedded\" of the crate annals, or its backend in this registry; there are here",
        ),
    ] {
        assert_eq!(refused(&one(), url).await.to_string(), said);
    }
    let none = refused(&Registry::empty(), "ftp:").await;
    assert!(none.to_string().ends_with("there are none here"), "{none}");
}

#[tokio::test]
async fn every_planned_backend_says_so() {
    for scheme in ["kafka", "kinesis", "sqs", "sns", "amqp", "amqps"] {
        let error = refused(&Registry::default(), &format!("{scheme}:x")).await;
        assert!(error.to_string().contains("not yet available"), "{error}");
    }
}

#[tokio::test]
async fn a_password_never_comes_back() {
    for url in [
        "amqps://app:hunter2@host/v?password=hunter2",
        "ftp://app:hunter2@host?x=hunter2",
        "amqps//app:hunter2@host",
        "here://a:hunter2@b:hunter2@c",
    ] {
        let error = Registry::default().connect(url).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn a_backend_of_ones_own_gets_the_address_and_answers() {
    let error = one().connect("here:x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "connect: nobody is here");
    assert_eq!(format!("{:?}", one()), "{\"here\"}");
}
