//! Landlock with no rule but for the directories in which something is still to be done: whatever else it knows how to
//! forbid is forbidden.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};

use super::{Beneath, Layer, SandboxError, Use};

/// The newest interface whose whole vocabulary is asked for (Linux 6.12: all file access, TCP, signals, abstract
/// sockets). On an older kernel the rest is enforced and the layer is [`Layer::Partial`]; what is missing there
/// (TCP before 6.7, signals before 6.12) is refused by the system call filter as well.
const WANTED: ABI = ABI::V6;

/// Closes all paths, ports and scopes to this thread and those it will spawn, but for what may be done beneath
/// `directories`. Open descriptors keep working.
pub fn restrict(directories: &[Beneath<'_>]) -> Result<Layer, SandboxError> {
    let rules = directories
        .iter()
        .map(|&Beneath(directory, why)| Ok::<_, RulesetError>(PathBeneath::new(directory, rights(why))));
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

fn rights(why: Use) -> BitFlags<AccessFs> {
    match why {
        Use::Read => AccessFs::ReadFile.into(),
        Use::Appear => AccessFs::MakeReg | AccessFs::RemoveFile,
        Use::Create => {
            AccessFs::MakeReg
                | AccessFs::RemoveFile
                | AccessFs::ReadFile
                | AccessFs::WriteFile
                | AccessFs::Truncate
        }
    }
}
