//! The codes that cloud platforms give to prove that a CA's private key is held: the verification certificate has the code
//! as its common name.

use std::{fmt, str::FromStr};

/// A code for a verification certificate: 16 to 64 characters of `A-Z a-z 0-9 -`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PossessionCode(String);

/// The text is no code of a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the code {shown:?} must have 16 to 64 characters of A-Z a-z 0-9 -, as the platform's console or API gives it{hint}"
)]
pub struct InvalidCode {
    shown: String,
    hint: &'static str,
}

impl PossessionCode {
    /// The shortest, in characters.
    pub const SHORTEST: usize = 16;
    /// The longest, in characters: the upper bound of a common name (RFC 5280 appendix A.1, ub-common-name).
    pub const LONGEST: usize = 64;

    /// The code.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The platform whose codes look so, if one is known.
    pub fn shape(&self) -> Option<CodeShape> {
        CodeShape::of(&self.0)
    }
}

impl FromStr for PossessionCode {
    type Err = InvalidCode;

    fn from_str(text: &str) -> Result<PossessionCode, InvalidCode> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if (Self::SHORTEST..=Self::LONGEST).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(PossessionCode(text.to_owned()));
        }
        let blank = text.trim() != text && text.trim().parse::<PossessionCode>().is_ok();
        Err(InvalidCode {
            shown: text.chars().take(80).collect(),
            hint: if blank { "; it has blanks around it" } else { "" },
        })
    }
}

impl fmt::Display for PossessionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The form of a platform's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeShape {
    /// AWS IoT's registration code: 64 lower-case hex digits.
    Aws,
    /// Azure's verification code: 40 (DPS) or 48 (IoT Hub) upper-case hex digits.
    Azure,
    /// Huawei Cloud IoTDA's verification code: a UUID.
    Huawei,
}

impl CodeShape {
    /// The form that a text has. Of a UUID nothing tells whether it is a code or a device's own id.
    pub fn of(text: &str) -> Option<CodeShape> {
        let lower_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let upper_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        match text.len() {
            64 if lower_hex(text) => Some(CodeShape::Aws),
            40 | 48 if upper_hex(text) => Some(CodeShape::Azure),
            36 if is_uuid(text) => Some(CodeShape::Huawei),
            _ => None,
        }
    }

    /// A text of each form.
    pub(crate) fn samples() -> impl Iterator<Item = String> {
        let hex = "0123456789abcdef";
        let aws = hex.repeat(4);
        let azure = hex.to_uppercase().repeat(3);
        let dps = azure[..40].to_owned();
        [aws, dps, azure, "01234567-89ab-4def-8123-456789abcdef".to_owned()].into_iter()
    }

    /// Whether a text of this length may have one of the forms.
    pub fn has_length(length: usize) -> bool {
        matches!(length, 64 | 40 | 48 | 36)
    }

    /// Whether a device id of this form could be used to prove possession of the CA's key for an account of a stranger: a
    /// platform takes the device's certificate as the verification certificate.
    pub fn is_refused_as_device_id(self) -> bool {
        match self {
            CodeShape::Aws | CodeShape::Azure => true,
            // Many devices have a UUID as their id.
            CodeShape::Huawei => false,
        }
    }
}

impl fmt::Display for CodeShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CodeShape::Aws => "AWS IoT's registration code (64 lower-case hex digits)",
            CodeShape::Azure => "Azure's verification code (40 or 48 upper-case hex digits)",
            CodeShape::Huawei => "Huawei Cloud's verification code (a UUID)",
        })
    }
}

/// 8-4-4-4-12 hex digits of either case (RFC 9562 section 4).
fn is_uuid(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each platform's form is known; others are codes without a known form.
    #[test]
    fn code_shape_of_each_platform_is_known() {
        for (code, shape) in [
            ("0123456789abcdef".repeat(4), Some(CodeShape::Aws)),
            ("0123456789ABCDEF".repeat(3), Some(CodeShape::Azure)),
            ("0123456789ABCDEF0123".repeat(2), Some(CodeShape::Azure)),
            ("123e4567-e89b-12d3-a456-426614174000".into(), Some(CodeShape::Huawei)),
            ("123e4567e-89b-12d3-a456-426614174000".into(), None),
            ("0123456789abcdeF".repeat(4), None),
            ("0123456789ABCDEF".into(), None),
        ] {
            assert_eq!(code.parse::<PossessionCode>().map(|code| code.shape()), Ok(shape), "{code}");
        }
    }

    /// What a common name cannot hold, or no platform gives, is refused with the rule.
    #[test]
    fn code_of_other_characters_or_length_is_refused() {
        for code in ["", "short", &"a".repeat(65), "0123456789abcdef_", "0123456789abcdef\n", "äöü4567890123456"] {
            let error = code.parse::<PossessionCode>().map_err(|error| error.to_string()).unwrap_err();
            assert!(error.contains("16 to 64 characters"), "{error}");
        }
        let error = " 0123456789abcdef".parse::<PossessionCode>().map_err(|error| error.to_string()).unwrap_err();
        assert!(error.contains("blanks around it"), "{error}");
    }
}
