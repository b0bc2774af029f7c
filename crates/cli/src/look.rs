//! `keyway ps`, `keyway caps`, `keyway queues`: what a running broker knows.

use std::collections::BTreeMap;

use keyway::{
    Client, Handle, Rights,
    abi::{CapabilityEntry, LaneEntry, ProcessEntry, ProcessNumber, QueueEntry},
};
use serde::Serialize;

use crate::{
    Socket, Stop, looked,
    table::{self, Align},
};

/// The options of a listing.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    socket: Socket,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The options of `keyway caps`.
#[derive(Debug, clap::Args)]
pub(crate) struct CapsOptions {
    /// Only the capabilities of the process with this pid.
    pid: Option<u32>,
    #[command(flatten)]
    listing: Options,
}

/// `keyway ps`.
pub(crate) fn processes(options: &Options) -> Result<(), Stop> {
    let client = options.socket.connect()?;
    let entries = others(&client)?;
    if options.json {
        return table::print_json(&entries);
    }
    let columns = [
        ("PID", Align::Right),
        ("PROCESS", Align::Right),
        ("USER", Align::Right),
        ("CAPS", Align::Right),
        ("SENDS", Align::Right),
        ("RECEIVES", Align::Right),
        ("MEMORY", Align::Right),
        ("CONFINED", Align::Left),
        ("EXECUTABLE", Align::Left),
    ];
    let row = |entry: &ProcessEntry| {
        vec![
            pid(entry.pid),
            entry.process.to_string(),
            entry.uid.to_string(),
            entry.handles.to_string(),
            entry.lanes_sending.to_string(),
            entry.lanes_receiving.to_string(),
            table::bytes(entry.bytes),
            if entry.confined { "yes" } else { "no" }.into(),
            if entry.executable.is_empty() { "-".into() } else { entry.executable.clone() },
        ]
    };
    print_rows(&columns, &entries.iter().map(row).collect::<Vec<_>>(), "no process is connected");
    Ok(())
}

#[derive(Serialize)]
struct Held {
    pid: u32,
    process: ProcessNumber,
    #[serde(flatten)]
    capability: CapabilityEntry,
}

/// `keyway caps`.
pub(crate) fn capabilities(options: &CapsOptions) -> Result<(), Stop> {
    let client = options.listing.socket.connect()?;
    let all = others(&client)?;
    let pids: BTreeMap<ProcessNumber, u32> = all.iter().map(|entry| (entry.process, entry.pid)).collect();
    let chosen: Vec<&ProcessEntry> =
        all.iter().filter(|entry| options.pid.is_none_or(|pid| entry.pid == pid)).collect();
    if let (Some(pid), true) = (options.pid, chosen.is_empty()) {
        return Err(Stop(format!(
            "no process with the pid {pid} is connected to this broker; `keyway ps` lists those that are"
        )));
    }
    let mut held = Vec::new();
    for entry in chosen {
        // A process may end between the two questions.
        let Ok(capabilities) = client.capabilities_of(entry.process) else { continue };
        let (pid, process) = (entry.pid, entry.process);
        held.extend(capabilities.into_iter().map(|capability| Held { pid, process, capability }));
    }
    if options.listing.json {
        return table::print_json(&held);
    }
    let columns = [
        ("PID", Align::Right),
        ("HANDLE", Align::Right),
        ("KIND", Align::Left),
        ("OBJECT", Align::Right),
        ("LABEL", Align::Left),
        ("RIGHTS", Align::Left),
        ("BADGE", Align::Right),
        ("BOUNDS", Align::Left),
        ("DERIVED FROM", Align::Left),
    ];
    let row = |held: &Held| {
        let entry = &held.capability;
        vec![
            pid(held.pid),
            entry.handle.to_string(),
            entry.kind.to_string(),
            entry.object.to_string(),
            entry.label.as_ref().map_or("-".into(), ToString::to_string),
            entry.rights.to_string(),
            entry.badge.map_or("-".into(), |badge| badge.to_string()),
            bounds(entry, &client),
            parent(entry, &pids),
        ]
    };
    print_rows(&columns, &held.iter().map(row).collect::<Vec<_>>(), "no capabilities");
    Ok(())
}

/// When it ends and what it allows to be opened, as far as that is bounded.
fn bounds(entry: &CapabilityEntry, client: &Client) -> String {
    let ends = entry.expires_ns.map(|at| format!("{} s left", client.remaining(at).as_secs()));
    let opens = entry.limits.opens.map(|max| format!("{max} open"));
    let ring = entry.limits.ring_bytes.map(|max| format!("rings of {}", table::bytes(max.into())));
    let priority = entry.limits.priority.map(|max| format!("priority {max}"));
    let all: Vec<String> = [ends, opens, ring, priority].into_iter().flatten().collect();
    if all.is_empty() { "-".into() } else { all.join(", ") }
}

#[derive(Serialize)]
struct QueueWithLanes {
    #[serde(flatten)]
    queue: QueueEntry,
    lanes: Vec<LaneEntry>,
}

/// `keyway queues`.
pub(crate) fn queues(options: &Options) -> Result<(), Stop> {
    let client = options.socket.connect()?;
    let lanes = looked(&client, Rights::INSPECT, client.lanes())?;
    let with_lanes = |queue: QueueEntry| {
        let lanes = lanes.iter().filter(|lane| lane.queue == queue.object).cloned().collect();
        QueueWithLanes { queue, lanes }
    };
    let queues: Vec<QueueWithLanes> =
        looked(&client, Rights::INSPECT, client.queues())?.into_iter().map(with_lanes).collect();
    if options.json {
        return table::print_json(&queues);
    }
    let columns = [
        ("QUEUE", Align::Left),
        ("NAME", Align::Left),
        ("RECEIVER", Align::Right),
        ("SENDERS", Align::Right),
        ("STOCK", Align::Right),
        ("SENDER", Align::Right),
        ("BADGE", Align::Right),
        ("WAITING", Align::Right),
        ("TAKEN", Align::Right),
        ("RING", Align::Right),
        ("PRIORITY", Align::Right),
        ("STATE", Align::Left),
    ];
    let mut rows = Vec::new();
    for QueueWithLanes { queue, lanes } in &queues {
        rows.push(queue_row(queue));
        rows.extend(lanes.iter().map(lane_row));
    }
    print_rows(&columns, &rows, "no queues");
    Ok(())
}

fn queue_row(queue: &QueueEntry) -> Vec<String> {
    let mut row = vec![
        queue.object.to_string(),
        queue.name.as_ref().map_or("-".into(), ToString::to_string),
        pid(queue.receiver_pid),
        format!("{}/{}", queue.senders, queue.senders_max),
        queue.stock.to_string(),
    ];
    row.resize(11, String::new());
    row.push(queue.order.to_string());
    row
}

fn lane_row(lane: &LaneEntry) -> Vec<String> {
    let state = match (lane.draining, lane.waiting_bytes) {
        (true, _) => "draining: its sender is gone",
        (false, None) => "opening, or its ends contradict each other",
        (false, Some(_)) => "open",
    };
    let mut row = vec![format!("  lane {}", lane.lane)];
    row.resize(5, String::new());
    row.extend([
        pid(lane.sender_pid),
        lane.badge.map_or("-".into(), |badge| badge.to_string()),
        lane.waiting_bytes.map_or("-".into(), |count| table::bytes(count.into())),
        lane.messages_taken.map_or("-".into(), |count| count.to_string()),
        table::bytes(lane.ring_bytes.into()),
        lane.priority.to_string(),
        state.into(),
    ]);
    row
}

/// The processes, without the one that looks.
fn others(client: &Client) -> Result<Vec<ProcessEntry>, Stop> {
    let mut entries = looked(client, Rights::INSPECT, client.processes())?;
    entries.retain(|entry| entry.process != client.process_number());
    Ok(entries)
}

fn parent(entry: &CapabilityEntry, pids: &BTreeMap<ProcessNumber, u32>) -> String {
    match entry.parent {
        None => "-".into(),
        Some((process, handle)) => {
            let holder = pids.get(&process).map_or("?".into(), |number| pid(*number));
            if handle == Handle::NONE {
                return format!("a name of {holder}");
            }
            format!("{handle} of {holder}")
        }
    }
}

fn pid(number: u32) -> String {
    if number == 0 { "(starting)".into() } else { number.to_string() }
}

fn print_rows(columns: &[(&str, Align)], rows: &[Vec<String>], nothing: &str) {
    if rows.is_empty() {
        println!("{nothing}");
    } else {
        println!("{}", table::render(columns, rows));
    }
}
