//! The maps that every message goes through.

/// A hash map by names and numbers. Its hasher takes a sixth of what the standard library's does for an instance's name; like that one it is seeded anew
/// for each process, so that nobody can choose names that collide without having watched it for long.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
