//! When an instance begins again after its end, and what is written down of that: `restarts.json`.
//!
//! Source: docker/cli `opts/opts.go` (`ParseRestartPolicy`), moby `restartmanager`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `--restart`. Nothing restarts what was stopped or killed by command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it has failed.
    OnFailure {
        /// At most so many times; 0 is no limit.
        most: u32,
    },
    /// Always.
    Always,
    /// Always. Docker tells it from `Always` when its daemon starts; there is none here.
    UnlessStopped,
}

impl RestartPolicy {
    /// Docker's name for it.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnFailure { .. } => "on-failure",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
        }
    }

    /// The largest number of restarts, 0 for no limit.
    pub fn most(self) -> u32 {
        match self {
            RestartPolicy::OnFailure { most } => most,
            _ => 0,
        }
    }

    /// Whether an end with this code, after so many restarts, is followed by another start.
    pub(crate) fn applies(self, exit_code: u8, restarts: u32) -> bool {
        match self {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { most } => exit_code != 0 && (most == 0 || restarts < most),
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.most() {
            0 => f.write_str(self.name()),
            most => write!(f, "{}:{most}", self.name()),
        }
    }
}

/// A text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no restart policy: {problem}")]
pub struct RestartPolicyError {
    text: String,
    problem: &'static str,
}

impl FromStr for RestartPolicy {
    type Err = RestartPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |problem| RestartPolicyError {
            text: text.to_owned(),
            problem,
        };
        let (name, most) = match text.split_once(':') {
            Some((name, most)) => (name, Some(most)),
            None => (text, None),
        };
        if most.is_some() && name != "on-failure" {
            return Err(bad("only on-failure takes a number"));
        }
        match name {
            "no" | "" => Ok(RestartPolicy::No),
            "always" => Ok(RestartPolicy::Always),
            "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
            "on-failure" => match most.map(str::parse) {
                None => Ok(RestartPolicy::OnFailure { most: 0 }),
                Some(Ok(most)) => Ok(RestartPolicy::OnFailure { most }),
                Some(Err(_)) => Err(bad("the number after on-failure: is none")),
            },
            _ => Err(bad("give no, on-failure[:N], always or unless-stopped")),
        }
    }
}

/// What is written down of restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restarts {
    /// The version of this format.
    pub format: u32,
    /// How often the policy has started it again.
    pub count: u32,
    /// It has ended and its owner starts it again: what `exit.json` says is not the last word.
    pub pending: bool,
}

#[cfg(test)]
mod tests {
    use super::RestartPolicy::{self, Always, No, OnFailure, UnlessStopped};

    #[test]
    fn texts() {
        for (text, expected) in [
            ("no", No),
            ("", No),
            ("always", Always),
            ("unless-stopped", UnlessStopped),
            ("on-failure", OnFailure { most: 0 }),
            ("on-failure:5", OnFailure { most: 5 }),
        ] {
            let policy: RestartPolicy = text.parse().unwrap();
            assert_eq!(policy, expected);
            assert!(text.is_empty() || policy.to_string() == text);
        }
        for text in ["yes", "always:3", "on-failure:", "on-failure:-1", "Always"] {
            let error = text.parse::<RestartPolicy>().unwrap_err();
            assert!(error.to_string().contains(text));
        }
    }

    #[test]
    fn what_is_followed_by_a_start() {
        assert!(!No.applies(1, 0));
        assert!(Always.applies(0, 1000) && UnlessStopped.applies(0, 0));
        let twice = OnFailure { most: 2 };
        assert!(!twice.applies(0, 0));
        assert!(twice.applies(1, 1) && !twice.applies(1, 2));
        assert!(OnFailure { most: 0 }.applies(255, 9999));
    }
}
