//! Reading MessagePack so that an error names the field.

use serde::de::DeserializeOwned;

/// Reads a value; trailing bytes are passed over.
///
/// # Errors
/// Where the fault is, and what it is: ``field `items[0].task.attempt`: invalid type: string "x", expected u32``.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        // Only what fails is read with its path kept, which takes longer.
        let mut again = rmp_serde::Deserializer::from_read_ref(bytes);
        shortened(match serde_path_to_error::deserialize::<_, T>(&mut again) {
            Err(placed) if placed.path().iter().next().is_some() => {
                format!("field `{}`: {}", placed.path(), placed.inner())
            }
            _ => error.to_string(),
        })
    })
}

/// An error text repeats the value that is wrong, however long it is; this is for people, logs and headers.
pub(super) fn shortened(problem: String) -> String {
    const LONGEST: usize = 500;
    match problem.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &problem[..end]),
        None => problem,
    }
}
