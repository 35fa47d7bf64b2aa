//! A harness that only knows how to connect: it leaves nothing behind, or says what.

#[path = "../examples/small_backend/backend.rs"]
mod backend;

use std::sync::Arc;

use annals_conformance::harness::Plain;
use annals_conformance::models::log;
use annals_conformance::tap::{Hook, Tap};
use annals_conformance::{Cannot, Harness, Want};
use annals_core::driver::{Admin, Backend};
use annals_core::mock::MockAdmin;
use annals_core::{Bus, Clock, Effect, Error, ErrorKind, Retry};
use backend::Small;

fn over(client: impl Fn() -> Arc<dyn Backend> + Send + Sync + 'static) -> Plain {
    Plain::new("plain", Plain::prefix("law-"), move || {
        let client = client();
        async move { Ok(client) }
    })
}

#[tokio::test]
async fn no_topic_is_left_and_none_is_made_afterwards() {
    let service = log::State::new(Clock::system());
    let bus = Bus::new(service.connect());
    bus.topic("mine").create_if_missing().await.unwrap();
    let plain = over(move || Arc::new(service.connect()));
    let named = Want {
        name: Some("a.b".into()),
        ..Want::default()
    };
    let (one, other) = (
        plain.topic(&Want::default()).await.unwrap(),
        plain.topic(&named).await.unwrap(),
    );
    assert!(one.as_str().starts_with("law-") && other.as_str().ends_with("-a.b"));
    let taken = plain.topic(&named).await.unwrap_err();
    assert!(taken.to_string().contains("already"), "{taken}");
    assert_eq!(bus.topics().await.unwrap().len(), 3);
    // A case is over; a law is.
    plain.clean().await;
    assert_eq!(bus.topics().await.unwrap().len(), 1);
    plain.topic(&named).await.unwrap();
    assert_eq!(plain.end().await.len(), 0);
    let ended = plain.topic(&named).await;
    assert_eq!(ended, Err(Cannot::new("the run was ended")));
    let left = bus.topics().await.unwrap();
    assert_eq!(
        left.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["mine"]
    );
}

/// Makes topics, and removes none the first time that it is asked to.
#[derive(Debug)]
struct Stubborn(Arc<MockAdmin>);

impl Hook for Stubborn {
    fn admin(&self, _: Option<Arc<dyn Admin>>) -> Option<Arc<dyn Admin>> {
        Some(Arc::<MockAdmin>::clone(&self.0))
    }
}

#[tokio::test]
async fn what_cannot_be_removed_is_named_and_tried_again() {
    let denied = || Error::new(ErrorKind::Denied, Effect::None, Retry::Never, "not yours");
    let mut admin = MockAdmin::new();
    admin.expect_create().returning(|_, _| Ok(true));
    admin
        .expect_delete()
        .times(2)
        .returning(move |_| Err(denied()));
    admin.expect_delete().times(1).returning(|_| Ok(()));
    let (small, hook) = (Small::default(), Arc::new(Stubborn(Arc::new(admin))));
    let plain = over(move || Arc::new(Tap::new(Arc::new(small.another()), hook.clone())));
    let topic = plain.topic(&Want::default()).await.unwrap();
    plain.clean().await;
    let left = plain.end().await;
    let [(name, error)] = &left[..] else {
        panic!("{left:?}");
    };
    assert_eq!((name, error.kind()), (&topic, ErrorKind::Denied));
    assert_eq!(plain.end().await.len(), 0);
    assert_eq!(plain.end().await.len(), 0, "it is gone");
}

#[tokio::test]
async fn where_every_name_is_a_topic_one_that_is_new_is_taken() {
    let small = Small::default();
    let plain = over(move || Arc::new(small.another()));
    let topic = plain.topic(&Want::default()).await.unwrap();
    let two = Want {
        partitions: Some(2),
        ..Want::default()
    };
    let cannot = plain.topic(&two).await;
    assert_eq!(cannot, Err(Cannot::new("the backend makes no topics")));
    let left = plain.end().await;
    let [(name, error)] = &left[..] else {
        panic!("{left:?}");
    };
    assert_eq!((name, error.kind()), (&topic, ErrorKind::Unsupported));
}
