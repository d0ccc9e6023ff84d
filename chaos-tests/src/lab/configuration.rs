//! Reading a configuration for the lab.

use model::conf::{Config, Severity, check, render};

use super::error::PlanError;

/// The configuration in `text`; `file` is its name in messages. Warnings are left to `atmd` and `atmctl`.
///
/// # Errors
/// [`PlanError::Invalid`] with every problem at its place.
pub fn read_configuration(file: &str, text: &str) -> Result<Config, PlanError> {
    let checked = check(file, text);
    checked.config.ok_or_else(|| {
        let errors: Vec<_> = checked
            .diagnostics
            .into_iter()
            .filter(|d| d.severity == Severity::Error)
            .collect();
        PlanError::Invalid(render(&errors, file, text, false))
    })
}
