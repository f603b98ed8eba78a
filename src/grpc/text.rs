//! The protocol's rules for texts.

use super::request_error::RequestError;

/// The rule for texts for people.
///
/// # Errors
/// What the field must be.
pub(super) fn check_text(field: &str, text: &str, longest: usize) -> Result<(), RequestError> {
    if (1..=longest).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(RequestError::Invalid(format!("{field} must be 1 to {longest} characters without control characters")))
}

/// The same, for one that may be empty.
///
/// # Errors
/// As [`check_text`].
pub(super) fn check_optional_text(field: &str, text: &str, longest: usize) -> Result<(), RequestError> {
    if text.is_empty() { Ok(()) } else { check_text(field, text, longest) }
}
