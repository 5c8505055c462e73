//! Wakes at a moment to within tens of microseconds. The runtime's own timers tick in milliseconds, which would make an open
//! loop at 20,000 requests/s one of 1,000 bursts/s and add half a millisecond to every latency.

use std::time::Duration;

use tokio::time::Instant;

/// Arrivals closer together than this leave together: at high rates a wake-up for each would cost more than sending it.
const GRAIN: Duration = Duration::from_micros(100);

/// A timer for one thread's schedule.
#[derive(Debug)]
pub(crate) struct Pacer {
    timer: imp::Timer,
    last: Option<Instant>,
}

impl Pacer {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            timer: imp::Timer::new()?,
            last: None,
        })
    }

    /// Waits for the moment, at least a grain since it last woke.
    pub(crate) async fn until(&mut self, moment: Instant) -> std::io::Result<()> {
        let earliest = self.last.map_or(moment, |last| moment.max(last + GRAIN));
        let wait = earliest.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            self.timer.wait(wait).await?;
        }
        self.last = Some(Instant::now());
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::os::fd::{AsFd, AsRawFd, RawFd};
    use std::time::Duration;

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::unix::AsyncFd;

    #[derive(Debug)]
    struct Raw(TimerFd);

    impl AsRawFd for Raw {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }

    #[derive(Debug)]
    pub(super) struct Timer(AsyncFd<Raw>);

    impl Timer {
        pub(super) fn new() -> std::io::Result<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe; the descriptor is owned by `timer` and never replaced"
            )]
            let timer = AsyncFd::new(Raw(timer))?;
            Ok(Self(timer))
        }

        pub(super) async fn wait(&self, wait: Duration) -> std::io::Result<()> {
            let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
            self.0.get_ref().0.set(expiration, TimerSetTimeFlags::empty())?;
            loop {
                let mut ready = self.0.readable().await?;
                let wait = ready.try_io(|timer| timer.get_ref().0.wait().map_err(std::io::Error::from));
                // Not a would-block: the expiration was taken, and nothing more comes before the timer is set again.
                if let Ok(result) = wait {
                    ready.clear_ready();
                    return result;
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::time::Duration;

    #[derive(Debug)]
    pub(super) struct Timer;

    impl Timer {
        pub(super) fn new() -> std::io::Result<Self> {
            Ok(Self)
        }

        #[expect(
            clippy::unused_self,
            reason = "the same shape as where there is a timer to keep"
        )]
        pub(super) async fn wait(&self, wait: Duration) -> std::io::Result<()> {
            tokio::time::sleep(wait).await;
            Ok(())
        }
    }
}
