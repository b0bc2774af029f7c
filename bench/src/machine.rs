//! The machine that the figures come from, and the two of its CPUs that the sides run on.

use std::{fs, thread::available_parallelism};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    system,
    thread::{CpuSet, sched_getaffinity},
};
use serde_json::{Value, json};

use crate::Result;

/// Descriptors that a process can be given where that is allowed: enough for ten thousand lanes.
const DESCRIPTORS: u64 = 1 << 16;

/// Lets this process, and those that it starts, have as many descriptors as it can.
pub(crate) fn raise_descriptors() {
    let found = getrlimit(Resource::Nofile).maximum;
    let more = found.map(|found| found.max(DESCRIPTORS));
    // More than the hard limit is for root; as much as that for everyone.
    for maximum in [more, found] {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
            return;
        }
    }
}

/// Descriptors that this process can have.
pub(crate) fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

pub(crate) struct Machine {
    cpu_model: String,
    cores: usize,
    kernel: String,
    load_at_start: f64,
    /// The asker's and the answerer's.
    pub(crate) cpus: [usize; 2],
}

impl Machine {
    pub(crate) fn describe() -> Result<Self> {
        let name = system::uname();
        Ok(Self {
            cpu_model: cpu_model(),
            cores: available_parallelism()?.get(),
            kernel: format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
            load_at_start: load(),
            cpus: two_cpus()?,
        })
    }

    /// What stands at the head of the table.
    pub(crate) fn headline(&self) -> String {
        let [asker, answerer] = self.cpus;
        let busy = if self.load_at_start >= BUSY_LOAD { " (busy: do not trust the figures)" } else { "" };
        format!(
            "{}, {} cores, {}, load {:.2}{busy}; asker on CPU {asker}, answerer on CPU {answerer}",
            self.cpu_model, self.cores, self.kernel, self.load_at_start
        )
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "cpu_model": self.cpu_model,
            "cores": self.cores,
            "kernel": self.kernel,
            "load_at_start": self.load_at_start,
            "cpus": self.cpus,
        })
    }
}

/// From here on other work takes its share of the two CPUs, and the slower system is as likely to suffer as the faster.
const BUSY_LOAD: f64 = 1.0;

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| format!("unnamed {}", std::env::consts::ARCH), |(_, name)| name.to_owned())
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// Two CPUs that this process may use, of different cores where there are such.
fn two_cpus() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(None)?;
    let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let [first, second, ..] = usable[..] else {
        return Err("two CPUs are needed, one for each side".into());
    };
    let apart = usable[1..].iter().find(|&&cpu| core(cpu) != core(first));
    Ok([first, apart.copied().unwrap_or(second)])
}

/// The CPUs that are hardware threads of the same core; the CPU's own number where the kernel does not say.
fn core(cpu: usize) -> String {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string())
}
