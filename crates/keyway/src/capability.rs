//! A capability that this process holds.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use keyway_abi::{
    self as abi, AclEntry, AclItem, Badge, CapabilityEntry, CapabilityLimits, Denial, Handle, Listing, Name,
    Reply, Rights, Signal, request,
};

use crate::{control::Control, error::Error, waiting::Until};

/// A capability that this process holds. Dropping it gives it up; what was derived from it stays with its holders.
#[derive(Debug)]
pub struct Capability {
    control: Arc<Control>,
    handle: Handle,
    rights: Rights,
    keeping: Keeping,
}

/// What a derived capability is to be. Never more than the one that it is derived from.
///
/// ```
/// use std::time::Duration;
/// use keyway::{Badge, Rights, Terms};
///
/// let terms = Terms::new(Rights::SEND).badge(Badge(7)).lifetime(Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    rights: Rights,
    badge: Option<Badge>,
    lifetime: Option<Duration>,
    limits: CapabilityLimits,
}

impl Terms {
    /// With these rights, and all else as the parent.
    pub fn new(rights: Rights) -> Self {
        Terms { rights, badge: None, lifetime: None, limits: CapabilityLimits::NONE }
    }

    /// With this badge, which the receiver of a message reads.
    #[must_use]
    pub fn badge(mut self, badge: Badge) -> Self {
        self.badge = Some(badge);
        self
    }

    /// It ends after this time, with all that is derived from it and the lanes that were opened through it. The time goes on while
    /// the machine is suspended.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// At most so many lanes (of a queue) or mappings (of a region) are open at a time through it and through all that is
    /// derived from it, in whatever process, together. Those that are open through the parent already do not count.
    #[must_use]
    pub fn opens(mut self, max: u16) -> Self {
        self.limits.opens = Some(max);
        self
    }

    /// The ring of a lane that is opened through it, or through what is derived from it, has at most so many bytes.
    #[must_use]
    pub fn ring_bytes(mut self, max: u32) -> Self {
        self.limits.ring_bytes = Some(max);
        self
    }

    /// A lane that is opened through it, or through what is derived from it, has at most this priority: 0, the lowest, to 7.
    #[must_use]
    pub fn priority(mut self, max: u8) -> Self {
        self.limits.priority = Some(max);
        self
    }

    /// The same for the broker, whose lifetimes are moments of its clock.
    fn at_brokers_clock(&self, control: &Control) -> abi::Terms {
        let Terms { rights, badge, lifetime, limits } = *self;
        abi::Terms { rights, badge, expires_ns: control.expiry_ns(lifetime), limits }
    }
}

/// What becomes of the capability when the value is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    Delete,
    Keep,
}

impl Capability {
    /// A capability that is given up with the value.
    pub(crate) fn adopted(control: &Arc<Control>, handle: Handle, rights: Rights) -> Self {
        Capability { control: Arc::clone(control), handle, rights, keeping: Keeping::Delete }
    }

    /// A capability that stays when the value is dropped.
    pub(crate) fn kept(control: &Arc<Control>, handle: Handle, rights: Rights) -> Self {
        Capability { control: Arc::clone(control), handle, rights, keeping: Keeping::Keep }
    }

    /// The number by which this process names it.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// What it may do, as it was when it came.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// What the kernel knows of it, as listings show it: the object, its rights now, and of a process its number and pid.
    ///
    /// # Errors
    /// [`Error::Denied`] when it has been taken back.
    pub fn entry(&self) -> Result<CapabilityEntry, Error> {
        let slot = self.handle.slot();
        let after = if slot == 0 { Handle::NONE } else { Handle::new(slot - 1, 1) };
        match self.control.request(request::ListOwn { after })?.0 {
            Reply::Listing(Listing::Capabilities(part)) => {
                let found = part.into_iter().find(|entry| entry.handle == self.handle);
                let denial = Denial::StaleHandle { handle: self.handle };
                found.ok_or(Error::Denied { operation: "ListOwn", denial })
            }
            _ => Err(Error::BrokerIncoherent { operation: "ListOwn" }),
        }
    }

    /// Makes an equal or weaker capability, in this process.
    ///
    /// # Errors
    /// [`Error::Denied`]: rights only shrink, and a badge is fixed once.
    pub fn derive(&self, rights: Rights, badge: Option<Badge>) -> Result<Capability, Error> {
        let (created, _) = self.control.create(request::Derive {
            from: self.handle,
            terms: abi::Terms { badge, ..abi::Terms::rights(rights) },
        })?;
        Ok(Capability::adopted(&self.control, created.handle, created.rights))
    }

    /// Makes an equal or weaker capability in this process, on these terms.
    ///
    /// # Errors
    /// [`Error::Denied`]: rights, lifetimes and limits only shrink, and a badge is fixed once.
    pub fn derive_with(&self, terms: &Terms) -> Result<Capability, Error> {
        let request = request::Derive { from: self.handle, terms: terms.at_brokers_clock(&self.control) };
        let (created, _) = self.control.create(request)?;
        Ok(Capability::adopted(&self.control, created.handle, created.rights))
    }

    /// As [`grant`](Self::grant), on these terms.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn grant_with(&self, to: &Capability, terms: &Terms) -> Result<Handle, Error> {
        let terms = terms.at_brokers_clock(&self.control);
        let request = request::Grant { from: self.handle, to: to.handle, terms };
        Ok(self.control.create(request)?.0.handle)
    }

    /// Puts a weaker capability in its place, for good. What was derived from it before stays with its holders; a later
    /// [`revoke`](Self::revoke) does not reach that.
    ///
    /// # Errors
    /// [`Error::Denied`]: rights, lifetimes and limits only shrink, and a queue, a device and a name stand on their first capability,
    /// which cannot be replaced.
    pub fn weaken(&mut self, terms: &Terms) -> Result<(), Error> {
        let terms = terms.at_brokers_clock(&self.control);
        let (created, _) = self.control.create(request::Weaken { handle: self.handle, terms })?;
        self.rights = created.rights;
        Ok(())
    }

    /// Makes an equal or weaker capability in the table of another process, to which `to` is a capability with the right
    /// `endow`. Returns its handle there.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn grant(&self, to: &Capability, rights: Rights, badge: Option<Badge>) -> Result<Handle, Error> {
        let terms = abi::Terms { badge, ..abi::Terms::rights(rights) };
        let request = request::Grant { from: self.handle, to: to.handle, terms };
        Ok(self.control.create(request)?.0.handle)
    }

    /// Looks a published queue up for another process, to which this is a capability with the right `endow`: the
    /// capability lands in that process's table, with a badge of its own. Returns its handle there.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn lookup_for(&self, name: &str) -> Result<Handle, Error> {
        let (name, directory) = (Name::new(name)?, self.control.directory());
        let on_behalf_of = Some(self.handle);
        Ok(self.control.create(request::Lookup { directory, name, on_behalf_of })?.0.handle)
    }

    /// Takes back everything derived from it, in every process. Once this returns, nothing derived from it can be used,
    /// and no message sent through it is received any more. Returns how many capabilities were taken back.
    ///
    /// # Errors
    /// [`Error::Denied`] when it is gone itself.
    pub fn revoke(&self) -> Result<u64, Error> {
        match self.control.request(request::Revoke { handle: self.handle })?.0 {
            Reply::Revoked { count } => Ok(count),
            _ => Err(Error::BrokerIncoherent { operation: "Revoke" }),
        }
    }

    /// Adds an entry to the access list of what it names: a queue, a region or a device. Needs the right `control`. Returns the
    /// entry's number.
    ///
    /// The list is judged each time that a capability to the object is used: what it allows a process is added to the rights of the
    /// capability in its hand, what it denies is taken away, and a denial wins. What is open already stays open.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right, for permissions that such an object does not have, and at a limit.
    ///
    /// # Examples
    /// ```no_run
    /// # fn main() -> Result<(), keyway::Error> {
    /// # let client = keyway::Client::connect()?;
    /// # let region = client.create_region(4096)?;
    /// use keyway::{AclEntry, AclKind, Rights, Subject};
    ///
    /// let permissions = Rights::MAP;
    /// region.acl_add(&AclEntry { subject: Subject::Group(100), permissions, kind: AclKind::Allow })?;
    /// region.acl_add(&AclEntry { subject: Subject::User(1001), permissions, kind: AclKind::Deny })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn acl_add(&self, entry: &AclEntry) -> Result<u64, Error> {
        match self.control.request(request::AclAdd { object: self.handle, entry: entry.clone() })?.0 {
            Reply::AclAdded { number } => Ok(number),
            _ => Err(Error::BrokerIncoherent { operation: "AclAdd" }),
        }
    }

    /// Removes an entry from the access list of what it names. Needs the right `control`.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right, or when there is no such entry.
    pub fn acl_remove(&self, number: u64) -> Result<(), Error> {
        self.control.ask(request::AclRemove { object: self.handle, number }).map(drop)
    }

    /// The access list of what it names, in the order in which entries were added. Needs the right `control`.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right.
    pub fn acl(&self) -> Result<Vec<AclItem>, Error> {
        let mut all = Vec::<AclItem>::new();
        loop {
            let after = all.last().map(|item| item.number);
            match self.control.request(request::AclList { object: self.handle, after })?.0 {
                Reply::Listing(Listing::Acl(part)) if part.is_empty() => return Ok(all),
                Reply::Listing(Listing::Acl(part)) => all.extend(part),
                _ => return Err(Error::BrokerIncoherent { operation: "AclList" }),
            }
        }
    }

    /// What this process may do with it now, the access list of what it names considered.
    ///
    /// # Errors
    /// [`Error::Denied`] when it is gone.
    pub fn permitted(&self) -> Result<Rights, Error> {
        match self.control.request(request::AclCheck { object: self.handle })?.0 {
            Reply::Permitted { rights } => Ok(rights),
            _ => Err(Error::BrokerIncoherent { operation: "AclCheck" }),
        }
    }

    /// Gives it up, and says whether that went well.
    ///
    /// # Errors
    /// [`Error::Denied`] when it is gone already.
    pub fn delete(mut self) -> Result<(), Error> {
        self.keeping = Keeping::Keep;
        self.control.ask(request::Delete { handle: self.handle }).map(drop)
    }

    /// Lets it stay in this process's table after the value is dropped.
    pub fn into_handle(mut self) -> Handle {
        self.keeping = Keeping::Keep;
        self.handle
    }

    /// The descriptor of a device. Needs the right `claim`.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn claim(&self) -> Result<OwnedFd, Error> {
        let mut descriptors = self.control.ask(request::Claim { device: self.handle })?;
        descriptors.pop().ok_or(Error::BrokerIncoherent { operation: "Claim" })
    }

    /// Raises a signal at the process that this names, with a value for it to read: `sigqueue(3)`, but never at another process
    /// that has its pid later. Needs the right `raise`. A standard signal that is pending there already merges with that
    /// one, whose value stays; real-time ones queue.
    ///
    /// Returns once the signal is pending, dropped because it is ignored, or, where its action is the default one, once Linux
    /// has it. See [`Signals`](crate::Signals) for the other side.
    ///
    /// # Errors
    /// [`Error::Denied`] without the right (`EPERM`), when the process has ended or not begun its session (`ESRCH`), when as
    /// many real-time signals are queued as may be (`EAGAIN`), and when the broker may not carry out the default action
    /// (`EOPNOTSUPP`).
    pub fn raise(&self, signal: Signal, value: u64) -> Result<(), Error> {
        let signal = signal.number().into();
        self.control.ask(request::Raise { process: self.handle, signal, value }).map(drop)
    }

    /// Asks to be told when a process ends. Needs the right `watch`.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn watch(&self) -> Result<Watch, Error> {
        self.control.ask(request::Watch { process: self.handle })?;
        Ok(Watch { control: Arc::clone(&self.control), process: self.handle })
    }
}

impl Drop for Capability {
    fn drop(&mut self) {
        if self.keeping == Keeping::Delete && !self.control.is_over() {
            // It may have been taken back already.
            let _ = self.control.ask(request::Delete { handle: self.handle });
        }
    }
}

/// A process whose end this one will be told of.
#[derive(Debug)]
pub struct Watch {
    control: Arc<Control>,
    process: Handle,
}

impl Watch {
    /// Whether the process has ended.
    ///
    /// # Errors
    /// [`Error::BrokerGone`].
    pub fn has_ended(&self) -> Result<bool, Error> {
        self.control.pump()?;
        Ok(self.control.routes().ended.contains(&self.process))
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::BrokerGone`].
    pub fn wait(&self, timeout: Duration) -> Result<Duration, Error> {
        let (began, until) = (Instant::now(), Until::after(timeout));
        loop {
            let seen = self.control.events_seen();
            if self.has_ended()? {
                return Ok(began.elapsed());
            }
            let sleep = until.sleep().ok_or(Error::TimedOut(timeout))?;
            keyway_sys::futex::wait(&[(self.control.event_word(), seen)], sleep)?;
        }
    }
}
