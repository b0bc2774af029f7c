//! A region made, mapped and written, beside a bare memfd of the same size.
//!
//! Both times run until a byte of every page has been written. The region goes through a broker in a process of its own
//! (made there, mapped and sealed here); the memfd is made, sized, mapped and written by this process alone. Neither
//! time has the clearing away in it.

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
    time::Instant,
};

use keyway::Client;
use rustix::{
    fs::{self, MemfdFlags},
    mm::{self, MapFlags, ProtFlags},
};

use crate::{
    Result,
    reading::{Aim, Reading},
    rounds::median,
    stage::{Stage, pin},
};

pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    pin(stage.cpus[0])?;
    let broker = stage.start_broker()?;
    let client = Client::connect_to(&stage.broker_path())?;
    let mut readings = Vec::new();
    for (bytes, name, repeats) in [
        (4 << 10, "4 KiB", stage.effort.choose(300, 3000)),
        (1 << 20, "1 MiB", stage.effort.choose(30, 300)),
        (1 << 30, "1 GiB", stage.effort.choose(0, 1)),
    ] {
        if repeats == 0 {
            continue;
        }
        if bytes == 1 << 30 && available_bytes() < 4 << 30 {
            eprintln!("keyway-bench: 1 GiB is left out: less than 4 GiB of memory are available");
            continue;
        }
        let (mut regions, mut memfds) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            regions.push(region_ns(&client, bytes)?);
            memfds.push(memfd_ns(bytes)?);
        }
        let reading = Reading::ns(name, median(regions)).beside("bare memfd", median(memfds));
        // A small one is all round trips to the broker, which a memfd has none of.
        readings.push(if bytes >= 1 << 20 { reading.aim(Aim::TimesBeside(1.3)) } else { reading });
    }
    drop(client);
    broker.finish()?;
    Ok(readings)
}

const PAGE: usize = 4096;

fn region_ns(client: &Client, bytes: usize) -> Result<f64> {
    let began = Instant::now();
    let region = client.create_region(bytes as u64)?;
    let writer = client.map_writer(&region)?;
    for offset in (0..bytes).step_by(PAGE) {
        writer.write(offset, &[1])?;
    }
    Ok(began.elapsed().as_nanos() as f64)
}

fn memfd_ns(bytes: usize) -> Result<f64> {
    let began = Instant::now();
    let file = fs::memfd_create("keyway-bench", MemfdFlags::CLOEXEC)?;
    fs::ftruncate(&file, bytes as u64)?;
    // SAFETY: a null hint lets the kernel choose addresses that nothing else uses.
    let base = unsafe {
        mm::mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)
    }?;
    let mapped = Mapped { base: NonNull::new(base).ok_or("mmap answered null")?, bytes };
    for offset in (0..bytes).step_by(PAGE) {
        mapped.write(offset);
    }
    Ok(began.elapsed().as_nanos() as f64)
}

/// A mapping of this process alone, writable and `bytes` long from `base` (invariant).
struct Mapped {
    base: NonNull<c_void>,
    bytes: usize,
}

impl Mapped {
    fn write(&self, offset: usize) {
        assert!(offset < self.bytes, "byte {offset} of {}", self.bytes);
        // SAFETY: within the mapping (check above; type: invariant).
        let byte = unsafe { self.base.byte_add(offset) };
        // SAFETY: writable, and nobody else has it (type: invariant); volatile, so that it is written at all.
        unsafe { byte.cast::<u8>().write_volatile(1) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it (type: invariant). A failure leaks it.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), self.bytes) };
    }
}

/// What Linux says it could give without swapping; nothing where it does not say.
fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
