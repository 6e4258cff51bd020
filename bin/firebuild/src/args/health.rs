//! `--health-…` of `firebuild run`, as in Docker.

use std::time::Duration;

use clap::Args;
use firebuild_engine::run::health::{HealthFlags, go_duration};

/// How to see whether the application is well; without a flag the image's HEALTHCHECK says it.
#[derive(Args, Clone, Debug)]
pub(crate) struct HealthArgs {
    /// Line for the shell whose success means that the application is well
    #[arg(
        long,
        value_name = "LINE",
        allow_hyphen_values = true,
        help_heading = "Health"
    )]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks, like 1m30s (default: 30s)
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Health")]
    pub(crate) health_interval: Option<Duration>,
    /// Time after which a check has failed (default: 30s)
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Health")]
    pub(crate) health_timeout: Option<Duration>,
    /// Time after the start in which failures do not count (default: 0s)
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Health")]
    pub(crate) health_start_period: Option<Duration>,
    /// Time between two checks in the start period (default: 5s)
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Health")]
    pub(crate) health_start_interval: Option<Duration>,
    /// Failures in a row that mean unhealthy (default: 3)
    #[arg(long, value_name = "COUNT", help_heading = "Health")]
    pub(crate) health_retries: Option<u32>,
    /// Do not look, whatever the image says
    #[arg(
        long,
        conflicts_with_all = [
            "health_cmd", "health_interval", "health_timeout", "health_start_period", "health_start_interval",
            "health_retries"
        ],
        help_heading = "Health"
    )]
    pub(crate) no_healthcheck: bool,
}

impl HealthArgs {
    /// The flags as the engine takes them.
    pub(crate) fn flags(&self) -> HealthFlags {
        HealthFlags {
            none: self.no_healthcheck,
            cmd: self.health_cmd.clone(),
            interval: self.health_interval,
            timeout: self.health_timeout,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            retries: self.health_retries,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match go_duration(text) {
        // Docker's least, as for HEALTHCHECK.
        Some(duration) if duration.is_zero() || duration >= Duration::from_millis(1) => {
            Ok(duration)
        }
        Some(_) => Err("it is less than 1ms".to_owned()),
        None => Err("a number with a unit is needed, such as 30s or 1m30s".to_owned()),
    }
}
