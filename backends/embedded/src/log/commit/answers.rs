//! The answers of a group, from the commit to those who wait for them.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::Answer;

/// From how many answers on a task of the runtime gives them.
const MANY: usize = 8;

/// Answers that are due. Dropped, they are given: whatever becomes of who holds them, nobody waits
/// for ever.
#[derive(Debug, Default)]
pub struct Answers(Vec<(oneshot::Sender<Answer>, Answer)>);

impl Answers {
    pub(super) fn push(&mut self, to: oneshot::Sender<Answer>, answer: Answer) {
        self.0.push((to, answer));
    }

    /// Gives them. Many are given by a task: each waiter that is woken from outside of its runtime
    /// takes the runtime's common lock and may cost a system call, one that is woken by a task of
    /// it does not. A runtime of one thread may stand still while its handles are used, so there
    /// they are given here.
    pub fn give(self) {
        let of_many_threads =
            |runtime: &Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        if self.0.len() >= MANY
            && let Some(runtime) = Handle::try_current().ok().filter(of_many_threads)
        {
            // Should the runtime end first, it drops the task.
            runtime.spawn(async move { drop(self) });
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for (to, answer) in self.0.drain(..) {
            let _ = to.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Builder;

    use super::*;

    type Receivers = Vec<oneshot::Receiver<Answer>>;

    fn many() -> (Answers, Receivers) {
        let mut answers = Answers::default();
        let ask = |first| {
            let (to, receiver) = oneshot::channel();
            answers.push(to, Answer::Stored(first));
            receiver
        };
        let receivers = (0..MANY as u64).map(ask).collect();
        (answers, receivers)
    }

    fn assert_given(receivers: Receivers) {
        for (first, receiver) in (0..).zip(receivers) {
            assert!(matches!(receiver.blocking_recv(), Ok(Answer::Stored(n)) if n == first));
        }
    }

    #[test]
    fn a_runtime_of_one_thread_that_stands_still_holds_no_answer_up() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let (answers, mut receivers) = many();
        {
            let _inside = runtime.enter();
            answers.give();
        }
        for receiver in &mut receivers {
            assert!(receiver.try_recv().is_ok());
        }
    }

    #[test]
    fn answers_are_given_also_when_their_runtime_ends_first() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (busy, is_busy) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        runtime.spawn(async move {
            busy.send(()).unwrap();
            let _ = released.recv();
        });
        is_busy.recv().unwrap();
        let (answers, mut receivers) = many();
        {
            let _inside = runtime.enter();
            answers.give();
        }
        for receiver in &mut receivers {
            assert!(receiver.try_recv().is_err(), "the only worker was busy");
        }
        runtime.shutdown_background();
        drop(release);
        assert_given(receivers);
    }
}
