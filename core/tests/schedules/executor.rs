//! An executor that chooses by a seed who runs next: the same code meets many schedules.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Longer, in virtual time, than anybody waits for anything.
const STUCK: Duration = Duration::from_secs(3600);

/// A seeded generator (splitmix64).
#[derive(Clone)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }
}

pub(crate) type Actor = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Set by a wake-up of its actor; passed on to whoever waits for any of them.
struct Flag {
    woken: AtomicBool,
    waits: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waits.lock().unwrap().take() {
            waker.wake();
        }
    }
}

/// Polls the actors in an order by `seed`, and only those that were woken, so that a lost wake-up
/// is seen; other tasks of the runtime run in between, or not. Ends with all of them, or says who
/// is stuck. The runtime's time is paused.
pub(crate) async fn run(seed: &mut Seed, actors: Vec<Actor>) {
    let waits = Arc::default();
    let mut actors: Vec<(usize, Actor, Arc<Flag>)> = actors
        .into_iter()
        .enumerate()
        .map(|(name, actor)| {
            let flag = Flag {
                woken: AtomicBool::new(true),
                waits: Arc::clone(&waits),
            };
            (name, actor, Arc::new(flag))
        })
        .collect();
    while !actors.is_empty() {
        let ready: Vec<usize> = (0..actors.len())
            .filter(|at| actors[*at].2.woken.load(Ordering::SeqCst))
            .collect();
        if ready.is_empty() {
            let flags: Vec<Arc<Flag>> = actors.iter().map(|(.., flag)| Arc::clone(flag)).collect();
            let any = poll_fn(|cx| {
                *waits.lock().unwrap() = Some(cx.waker().clone());
                if flags.iter().any(|flag| flag.woken.load(Ordering::SeqCst)) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            });
            if tokio::time::timeout(STUCK, any).await.is_err() {
                let names: Vec<usize> = actors.iter().map(|(name, ..)| *name).collect();
                panic!("nobody wakes {names:?}");
            }
            continue;
        }
        let at = ready[seed.below(ready.len())];
        let (_, actor, flag) = &mut actors[at];
        flag.woken.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(flag));
        if actor
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            drop(actors.swap_remove(at));
        }
        for _ in 0..seed.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// Gives others a turn.
pub(crate) async fn pause(seed: &mut Seed) {
    for _ in 0..seed.below(3) {
        let mut waited = false;
        poll_fn(|cx| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
