//! `rt_sigqueueinfo` to a handler in another process: what Linux offers for signals.
//!
//! The answerer sleeps in `sigsuspend` with the signal held back otherwise, so that none is missed; the handler says in
//! shared memory what value came with the signal.

use std::{
    ffi::{c_int, c_void},
    hint,
    mem::MaybeUninit,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Result,
    payload::LAST,
    scenario::{Kind, Scenario},
    side::{Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Sigqueue;

impl System for Sigqueue {
    fn name(&self) -> &'static str {
        "sigqueue"
    }

    fn rank(&self) -> Rank {
        Rank::Limit
    }

    fn offers(&self, scenario: Scenario) -> bool {
        scenario.kind == Kind::Signal
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let (heard, pid) = (side.memory().word(0), side.memory().word(1));
        match side.role() {
            Role::Asker => {
                side.meet()?;
                let pid = pid.load(Ordering::Acquire) as libc::pid_t;
                side.measure_trips(|sequence| {
                    raise(pid, sequence + 1)?;
                    while heard.load(Ordering::Acquire) != sequence + 1 {
                        hint::spin_loop();
                    }
                    Ok(())
                })?;
                raise(pid, LAST)?;
            }
            Role::Answerer => {
                HEARD.get_or_init(|| heard);
                let asleep = listen()?;
                pid.store(std::process::id().into(), Ordering::Release);
                side.meet()?;
                while heard.load(Ordering::Acquire) != LAST {
                    // SAFETY: the mask is a whole one (`listen`). It answers `EINTR` whenever a handler has run.
                    unsafe { libc::sigsuspend(&raw const asleep) };
                }
            }
        }
        side.meet()
    }
}

/// Where the handler says what it has heard.
static HEARD: OnceLock<&'static AtomicU64> = OnceLock::new();

extern "C" fn hear(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: Linux gives a handler with `SA_SIGINFO` the signal's own record (sigaction(2)).
    let info = unsafe { &*info };
    // SAFETY: the signal comes from `sigqueue` and from nowhere else, so the record has a value.
    let value = unsafe { info.si_value() };
    if let Some(heard) = HEARD.get() {
        heard.store(value.sival_ptr as u64, Ordering::Release);
    }
}

fn raise(pid: libc::pid_t, value: u64) -> Result<()> {
    let value = libc::sigval { sival_ptr: ptr::without_provenance_mut(value as usize) };
    // SAFETY: the value is no pointer to anyone; the call touches no memory of ours.
    done(unsafe { libc::sigqueue(pid, libc::SIGUSR1, value) })
}

/// Installs the handler and holds the signal back. Returns the mask under which it is not.
fn listen() -> Result<libc::sigset_t> {
    let mut usr1 = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is ours to write.
    done(unsafe { libc::sigemptyset(usr1.as_mut_ptr()) })?;
    // SAFETY: it was just made an empty set.
    let mut usr1 = unsafe { usr1.assume_init() };
    let before_all = usr1;
    // SAFETY: the set is a whole one.
    done(unsafe { libc::sigaddset(&raw mut usr1, libc::SIGUSR1) })?;
    let action = libc::sigaction {
        sa_sigaction: hear as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize,
        sa_mask: before_all,
        sa_flags: libc::SA_SIGINFO,
        sa_restorer: None,
    };
    // SAFETY: the handler has the signature that `SA_SIGINFO` asks for, and does nothing but an atomic store.
    done(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) })?;
    let mut asleep = before_all;
    // SAFETY: both sets are whole ones, and ours.
    done(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const usr1, &raw mut asleep) })?;
    Ok(asleep)
}

fn done(answer: c_int) -> Result<()> {
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}
