//! Filled in by the backend's own change.
