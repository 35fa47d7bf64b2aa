//! Ctrl-C and SIGTERM: asked once, the command ends in order; asked again, at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Code, Failure};

/// What was asked for so far. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<Asked>);

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    times: u32,
    terminated: bool,
}

impl Stop {
    /// Listens to the signals from now on.
    pub(crate) fn install() -> Result<Self, Failure> {
        let failed = |e| Failure::failed(format!("signals cannot be listened to: {e}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (tell, told) = watch::channel(Asked::default());
        tokio::spawn(async move {
            loop {
                let terminated = tokio::select! {
                    _ = interrupt.recv() => false,
                    _ = terminate.recv() => true,
                };
                tell.send_modify(|asked| {
                    asked.times += 1;
                    asked.terminated |= terminated;
                });
            }
        });
        Ok(Self(told))
    }

    /// How often it was asked for.
    pub(crate) fn times(&self) -> u32 {
        self.0.borrow().times
    }

    /// The code of a command that was ended before it was done.
    pub(crate) fn code(&self) -> Code {
        if self.0.borrow().terminated {
            Code::Terminated
        } else {
            Code::Interrupted
        }
    }

    /// Waits for what can be left alone at any time, or for the user to leave it.
    pub(crate) async fn or<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.asked(1) => Err(Failure::silent(self.code())),
            done = work => done,
        }
    }

    /// Waits until it was asked for `times` times.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub(crate) async fn asked(&self, times: u32) {
        let mut told = self.0.clone();
        let heard = told.wait_for(|asked| asked.times >= times).await.is_ok();
        if !heard {
            // Nobody listens any more: the process is ending.
            std::future::pending::<()>().await;
        }
    }
}
