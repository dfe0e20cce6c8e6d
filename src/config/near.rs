//! Which variable was meant by a name that is not one.

use super::variables;

/// What every variable begins with.
pub(super) const PREFIX: &str = "LEVERET_";
/// What test runners set: none of our business.
const TESTS: &str = "LEVERET_TEST_";

/// The variable that a name looks like a typing mistake of. A name that is far from all is left alone: others may use the prefix, as Kubernetes does
/// for a service that is called `leveret` (`LEVERET_PORT`, `LEVERET_SERVICE_HOST`).
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    if name.starts_with(TESTS) {
        return None;
    }
    let given = name.strip_prefix(PREFIX)?.to_ascii_uppercase();
    let distances = variables().iter().map(|variable| {
        let known = &variable.name()[PREFIX.len()..];
        (distance(&given, known), known.len(), variable.name())
    });
    let (distance, length, nearest) = distances.min()?;
    (distance <= (length / 4).clamp(1, 3)).then_some(nearest)
}

/// How many characters have to be added, removed, replaced or swapped with their neighbour to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if is_swap {
                    least.min(rows[i - 2][j - 2] + 1)
                } else {
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn a_swap_of_neighbours_is_one_mistake() {
        assert_eq!(distance("HTPT", "HTTP"), 1);
        assert_eq!(distance("LANE", "LANES"), 1);
        assert_eq!(distance("PORT", "HTTP"), 4);
        assert_eq!(distance("", "HTTP"), 4);
    }
}
