//! A revocation under way, and who waits for it.

use keyway_abi::ProcessNumber;

use crate::{account::AccountId, effect::Call, tree::CapabilityId};

/// Who asks, and where the reply goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) process: ProcessNumber,
    pub(crate) call: Call,
}

/// Who waits for a reply that is to come, and whose account that is charged to until then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaiting {
    pub(crate) caller: Caller,
    pub(crate) account: AccountId,
}

/// Why something ends, which decides who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its holder wanted it.
    Deleted,
    /// It was taken back.
    Revoked,
    /// Its object, or the process that owned it, is gone.
    Ended,
    /// Its time has come.
    Expired,
}

/// A revocation under way: everything below `root` counts as gone and is being cleared away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    pub(crate) root: CapabilityId,
    /// Who waits for the answer.
    pub(crate) awaiting: Option<Awaiting>,
    /// Capabilities taken back so far.
    pub(crate) count: u64,
    pub(crate) loss: Loss,
    /// Whether `root` itself goes as well.
    pub(crate) whole: bool,
}
