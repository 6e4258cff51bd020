//! Findings of the checks that need more than the text.

use std::collections::BTreeSet;

use firebuild_dockerfile::{CheckOptions, Warning};

use super::{LowerError, LowerErrorKind};

/// In order of position, each once.
pub(super) fn sorted(mut warnings: Vec<Warning>) -> Vec<Warning> {
    warnings.sort_by(|a, b| (a.span, a.rule, &a.message).cmp(&(b.span, b.rule, &b.message)));
    warnings.dedup();
    warnings
}

/// The error that `check=error=true` makes of warnings.
pub(super) fn fail(checks: &CheckOptions, warnings: &[Warning]) -> Result<(), LowerError> {
    let Some(first) = warnings.first().filter(|_| checks.is_error()) else {
        return Ok(());
    };
    let rules: BTreeSet<&str> = warnings.iter().map(|warning| warning.rule.name()).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    let message = format!("lint violation found for rules: {}", rules.join(", "));
    Err(LowerError::new(LowerErrorKind::Check, message).at(first.span))
}
