//! HEALTHCHECK of the image and the `--health-…` flags: what the guest shall run to see whether it is well.
//!
//! Sources: docker/cli `cli/command/container/opts.go`; moby `daemon/commit.go` (`merge`), `daemon/health.go`.

use std::time::Duration;

use firebuild_guest_proto::HealthCheck;
use firebuild_oci::{ContainerConfig, Healthcheck};

pub use firebuild_dockerfile::go_duration;

/// Docker's defaults (moby `daemon/health.go`).
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// The shell of a shell form where SHELL was not used.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What the flags say; what is left open is the image's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthFlags {
    /// `--no-healthcheck`: nothing looks.
    pub none: bool,
    /// `--health-cmd`: a line for the shell.
    pub cmd: Option<String>,
    /// `--health-interval`.
    pub interval: Option<Duration>,
    /// `--health-timeout`.
    pub timeout: Option<Duration>,
    /// `--health-start-period`.
    pub start_period: Option<Duration>,
    /// `--health-start-interval`.
    pub start_interval: Option<Duration>,
    /// `--health-retries`.
    pub retries: Option<u32>,
}

/// The image's HEALTHCHECK with the flags over it, in the form in which images have it.
pub(crate) fn merged(image: &ContainerConfig, flags: &HealthFlags) -> Option<Healthcheck> {
    if flags.none {
        return Some(Healthcheck {
            test: vec!["NONE".to_owned()],
            ..Healthcheck::default()
        });
    }
    let mut check = image.healthcheck.clone();
    if *flags != HealthFlags::default() {
        let check = check.get_or_insert_default();
        if let Some(line) = flags.cmd.as_ref().filter(|line| !line.is_empty()) {
            check.test = vec!["CMD-SHELL".to_owned(), line.clone()];
        }
        for (place, flag) in [
            (&mut check.interval, flags.interval),
            (&mut check.timeout, flags.timeout),
            (&mut check.start_period, flags.start_period),
            (&mut check.start_interval, flags.start_interval),
        ] {
            if let Some(duration) = flag.filter(|duration| !duration.is_zero()) {
                *place = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
            }
        }
        if let Some(retries) = flags.retries.filter(|&retries| retries > 0) {
            check.retries = retries.into();
        }
    }
    check
}

/// The check as the guest runs it; `None` where nothing is to be looked at.
pub(crate) fn check(config: &Healthcheck, shell: Option<&[String]>) -> Option<HealthCheck> {
    let (kind, words) = config.test.split_first()?;
    let argv = match kind.as_str() {
        "CMD" => words.to_vec(),
        "CMD-SHELL" => {
            let mut argv = match shell {
                Some(shell) if !shell.is_empty() => shell.to_vec(),
                _ => SHELL.map(str::to_owned).to_vec(),
            };
            argv.extend_from_slice(words);
            argv
        }
        // NONE, and what only a later Docker knows.
        _ => return None,
    };
    if argv.first().is_none_or(String::is_empty) || words.is_empty() {
        return None;
    }
    let ms = |nanoseconds: i64, default: Duration| {
        let given = u64::try_from(nanoseconds).unwrap_or(0);
        let duration = if given == 0 {
            default
        } else {
            Duration::from_nanos(given)
        };
        // Not zero: that would be a loop.
        u64::try_from(duration.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    };
    Some(HealthCheck {
        argv,
        interval_ms: ms(config.interval, INTERVAL),
        timeout_ms: ms(config.timeout, TIMEOUT),
        start_period_ms: u64::try_from(config.start_period).unwrap_or(0) / 1_000_000,
        start_interval_ms: ms(config.start_interval, START_INTERVAL),
        retries: u32::try_from(config.retries)
            .ok()
            .filter(|&retries| retries > 0)
            .unwrap_or(RETRIES),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use firebuild_oci::{ContainerConfig, Healthcheck};

    use super::{HealthFlags, check, merged};

    fn image(test: &[&str]) -> ContainerConfig {
        ContainerConfig {
            healthcheck: Some(Healthcheck {
                test: test.iter().map(|&word| word.to_owned()).collect(),
                interval: 5_000_000_000,
                retries: 7,
                ..Healthcheck::default()
            }),
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn the_image_is_the_default_and_flags_go_over_it() {
        let image = image(&["CMD", "curl", "-f", "x"]);
        let plain = check(&merged(&image, &HealthFlags::default()).unwrap(), None).unwrap();
        assert_eq!(plain.argv, ["curl", "-f", "x"]);
        assert_eq!(
            (plain.interval_ms, plain.timeout_ms, plain.start_period_ms),
            (5_000, 30_000, 0)
        );
        assert_eq!((plain.start_interval_ms, plain.retries), (5_000, 7));
        let flags = HealthFlags {
            cmd: Some("exit 1".to_owned()),
            interval: Some(Duration::from_millis(1500)),
            start_period: Some(Duration::from_secs(2)),
            retries: Some(1),
            ..HealthFlags::default()
        };
        let over = check(&merged(&image, &flags).unwrap(), None).unwrap();
        assert_eq!(over.argv, ["/bin/sh", "-c", "exit 1"]);
        assert_eq!((over.interval_ms, over.retries), (1_500, 1));
        assert_eq!(over.start_period_ms, 2_000);
        let shell = ["/bin/bash".to_owned(), "-ec".to_owned()];
        let shelled = check(&merged(&image, &flags).unwrap(), Some(&shell)).unwrap();
        assert_eq!(shelled.argv, ["/bin/bash", "-ec", "exit 1"]);
    }

    #[test]
    fn nothing_to_look_at() {
        let none = HealthFlags {
            none: true,
            ..HealthFlags::default()
        };
        let plain = HealthFlags::default();
        let nothing = |image: &ContainerConfig, flags: &HealthFlags| {
            merged(image, flags)
                .and_then(|merged| check(&merged, None))
                .is_none()
        };
        assert!(nothing(&image(&["CMD", "x"]), &none));
        for test in [&["NONE"][..], &[], &["CMD"], &["CMD", ""], &["NEW", "x"]] {
            assert!(nothing(&image(test), &plain), "{test:?}");
        }
        assert!(merged(&ContainerConfig::default(), &plain).is_none());
        // An interval alone is no check.
        let interval = HealthFlags {
            interval: Some(Duration::from_secs(1)),
            ..HealthFlags::default()
        };
        assert!(nothing(&ContainerConfig::default(), &interval));
    }
}
