//! Reading MessagePack so that an error names the field.

use serde::de::DeserializeOwned;

/// Reads a value; trailing bytes are passed over.
///
/// # Errors
/// Where the fault is, and what it is: ``field `items[0].task.attempt`: invalid type: string "x", expected u32``, or `the outermost value: ...`.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        // Only what fails is read with its path kept, which takes longer.
        let mut again = rmp_serde::Deserializer::from_read_ref(bytes);
        shortened(match serde_path_to_error::deserialize::<_, T>(&mut again) {
            Err(placed) if placed.path().iter().next().is_some() => {
                format!("field `{}`: {}", placed.path(), placed.inner())
            }
            _ => format!("the outermost value: {error}"),
        })
    })
}

/// An error text repeats the value that is wrong, however long it is, and then says what would be right; this is for people, logs and headers.
pub(super) fn shortened(problem: String) -> String {
    /// Characters of the beginning and of the end.
    const KEPT: [usize; 2] = [350, 150];
    let starts: Vec<_> = problem.char_indices().map(|(start, _)| start).collect();
    if starts.len() <= KEPT[0] + KEPT[1] {
        return problem;
    }
    let (head, tail) = (starts[KEPT[0]], starts[starts.len() - KEPT[1]]);
    format!("{}…{}", &problem[..head], &problem[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_long_value_says_what_would_be_right() {
        let long = rmp_serde::to_vec_named(&"é".repeat(5_000)).unwrap();
        let problem = read::<Vec<u8>>(&long).unwrap_err();
        assert!(
            problem.starts_with("the outermost value: invalid type: string \"éé")
                && problem.ends_with("éé\", expected a sequence"),
            "{problem}"
        );
        assert_eq!(problem.chars().count(), 501);
        let short = read::<Vec<u8>>(&rmp_serde::to_vec_named("x").unwrap()).unwrap_err();
        assert_eq!(
            short,
            "the outermost value: invalid type: string \"x\", expected a sequence"
        );
    }
}
