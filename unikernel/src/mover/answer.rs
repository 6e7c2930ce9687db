//! How far one answer of `qemu-img` about what is allocated goes.

use formats::{Chain, ChainError, ExtentKind, Mapping, Storage};

/// What the disk has at `offset`, and for how many bytes that is one answer, at most `limit`. What is wrong behind its first
/// extent is left to the question that begins there.
pub fn answer_at<S: Storage>(
    chain: &mut Chain<S>,
    offset: u64,
    limit: u64,
) -> Result<(Mapping, u64), ChainError> {
    let first = chain.status_at(offset)?;
    let answers = chain.layers().iter().take(first.layer + 1).filter_map(|layer| layer.units().answer);
    let limit = answers.fold(limit, |limit, answer| limit.min(answer - offset % answer));
    let mut length = first.extent.length;
    let mut last = first;
    while length < limit {
        let Ok(next) = chain.status_at(offset + length) else { break };
        if !goes_on(&last, &next) {
            break;
        }
        length += next.extent.length;
        last = next;
    }
    Ok((first, length.min(limit)))
}

/// Whether `next`, which follows `mapping`, is of one piece with it.
fn goes_on(mapping: &Mapping, next: &Mapping) -> bool {
    let (one, two) = (&mapping.extent, &next.extent);
    let behind = |offset: u64| offset.checked_add(one.length);
    (mapping.layer, mapping.allocated, one.file) == (next.layer, next.allocated, two.file)
        && match (one.kind, two.kind) {
            (ExtentKind::Zero { offset: None }, ExtentKind::Zero { offset: None }) => true,
            (ExtentKind::Zero { offset: Some(one) }, ExtentKind::Zero { offset: Some(two) })
            | (ExtentKind::Hole { offset: one }, ExtentKind::Hole { offset: two })
            | (ExtentKind::Data { offset: one }, ExtentKind::Data { offset: two }) => {
                behind(one) == Some(two)
            }
            _ => false,
        }
}
