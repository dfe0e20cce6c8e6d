//! Where a page of the index ended, as text: creation time and ID, so that the next page is found even if that instance is gone.

use crate::backend::{Error, Result};

/// A position in the index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// Creation time in ms.
    pub(super) created: u64,
    /// The instance's ID.
    pub(super) id: Vec<u8>,
}

impl Position {
    /// `<ms>-<ID in hex digits>`: safe in a URL whatever the ID.
    pub(super) fn token(&self) -> String {
        use std::fmt::Write as _;
        let mut token = format!("{}-", self.created);
        for byte in &self.id {
            let _ = write!(token, "{byte:02x}");
        }
        token
    }

    /// # Errors
    /// Permanent if it is not what [`Position::token`] writes.
    pub(super) fn parse(token: &str) -> Result<Self> {
        let parsed = token.split_once('-').and_then(|(created, id)| {
            let created = created.parse().ok()?;
            let digits = id.as_bytes().chunks(2);
            let id = digits.map(|pair| match pair {
                [_, _] => u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok(),
                _ => None,
            });
            let id: Vec<u8> = id.collect::<Option<_>>()?;
            Some(Position { created, id })
        });
        // Numbers may be read from more than what is written: a sign, say.
        let parsed = parsed.filter(|position| !position.id.is_empty() && position.token() == token);
        parsed.ok_or_else(|| {
            let shown: String = token.chars().take(40).collect();
            Error::permanent(format!(
                "{shown:?} is not a page token: pass on what the last page gave as `next`, or nothing to begin at the start"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(crate::backend::many_inputs())]

        #[test]
        fn whatever_is_passed_as_a_token_is_one_or_is_refused(text in "[0-9]{0,22}[-+]?([0-9a-f]{2}){0,9}|\\PC{0,40}") {
            match Position::parse(&text) {
                Ok(position) => assert_eq!(position.token(), text),
                Err(error) => assert!(error.is_permanent() && error.to_string().contains("page token")),
            }
        }
    }

    #[test]
    fn a_token_names_its_position_and_nothing_else_is_one() {
        let position = Position {
            created: 7,
            id: "a-b/é".into(),
        };
        assert_eq!(Position::parse(&position.token()).unwrap(), position);
        for bad in [
            "",
            "-",
            "7-",
            "x-61",
            "7-6",
            "7-6x",
            "7-é",
            "+7-61",
            "7-+1",
            "99999999999999999999-61",
            "61",
        ] {
            assert!(Position::parse(bad).unwrap_err().is_permanent(), "{bad}");
        }
    }
}
