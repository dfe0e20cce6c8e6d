//! Labels of instances: the rule of all who may set them.

use std::collections::BTreeMap;

/// Most tags of an instance: they are part of its record, which every turn reads.
pub(crate) const MOST_TAGS: usize = 32;
/// Longest key of a tag and longest value, in bytes.
pub(crate) const LONGEST_TAG: usize = 255;

/// # Errors
/// What is wrong, to be read behind "the tags".
pub(crate) fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), String> {
    if tags.len() > MOST_TAGS {
        return Err(format!("are {} in number: {MOST_TAGS} is the most", tags.len()));
    }
    for (key, value) in tags {
        if key.is_empty() {
            return Err("hold an empty key: a key has 1 to 255 bytes".into());
        }
        if let Some(text) = [key, value].into_iter().find(|text| text.len() > LONGEST_TAG) {
            let shown: String = text.chars().take(40).collect();
            return Err(format!(
                "hold a text of {} bytes ({shown:?}…): {LONGEST_TAG} is the most",
                text.len()
            ));
        }
    }
    Ok(())
}
