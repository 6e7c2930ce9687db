//! What both sides must know of `-o` lists and of messages about them.

/// Marks a line of an [`ErrorRecord`](crate::ErrorRecord)'s message as a hint: it is printed without this mark and
/// without the program's name in front of it.
pub const HINT: char = '\t';

/// Whether one `-o` list may be joined with others by commas (`Invalid option list: X` otherwise): it is not empty,
/// does not begin with a comma, and does not end with a comma that nothing escapes.
///
/// ```
/// use protocol::options::is_valid_list;
/// assert!(is_valid_list("a=1,b") && is_valid_list("a=1,,"));
/// assert!(!is_valid_list("") && !is_valid_list(",a") && !is_valid_list("a,") && !is_valid_list("a,,,"));
/// ```
pub fn is_valid_list(list: &str) -> bool {
    let trailing = list.len() - list.trim_end_matches(',').len();
    !list.is_empty() && !list.starts_with(',') && trailing.is_multiple_of(2)
}
