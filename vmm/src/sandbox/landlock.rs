//! Landlock with no rule but for the directories whose files may be read: whatever else it knows how to forbid is
//! forbidden.

use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

use super::{Layer, SandboxError};

/// The newest interface whose whole vocabulary is asked for (Linux 6.12: all file access, TCP, signals, abstract
/// sockets). On an older kernel the rest is enforced and the layer is [`Layer::Partial`]; what is missing there
/// (TCP before 6.7, signals before 6.12) is refused by the system call filter as well.
const WANTED: ABI = ABI::V6;

/// Closes all paths, ports and scopes to this thread and those it will spawn. Open descriptors keep working.
/// Files beneath `directories` can still be opened for reading.
pub fn restrict<D: AsFd>(directories: &[D]) -> Result<Layer, SandboxError> {
    let rules = directories
        .iter()
        .map(|directory| Ok::<_, RulesetError>(PathBeneath::new(directory, AccessFs::ReadFile)));
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rules(rules)?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Layer::Enforced,
        RulesetStatus::PartiallyEnforced => Layer::Partial,
        RulesetStatus::NotEnforced => Layer::Missing,
    })
}
