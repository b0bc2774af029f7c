//! `keyway audit`: what was granted, refused and taken back.

use std::{thread, time::Duration};

use keyway::{
    Client, Denial, Rights,
    abi::{AuditEntry, Request, Verdict},
};
use keyway_broker::boot_ns;

use crate::{
    Socket, Stop, looked,
    table::{self, Align},
};

/// The options of `keyway audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    socket: Socket,
    /// Print JSON: one list, or with --follow one record a line.
    #[arg(long)]
    json: bool,
    /// Go on, and print what happens from now on as it happens.
    #[arg(long)]
    follow: bool,
}

/// How long after the last look the next one is, with `--follow`.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// `keyway audit`.
pub(crate) fn run(options: &Options) -> Result<(), Stop> {
    let client = options.socket.connect()?;
    let entries = looked(&client, Rights::AUDIT, client.audit_log(None))?;
    if options.follow {
        return follow(&client, entries, options.json);
    }
    if options.json {
        return table::print_json(&entries);
    }
    if entries.is_empty() {
        println!("nothing has happened");
        return Ok(());
    }
    let now = boot_ns();
    let rows: Vec<Vec<String>> = entries.iter().map(|entry| row(entry, now).into()).collect();
    let columns = [
        ("NUMBER", Align::Right),
        ("AGO", Align::Right),
        ("PID", Align::Right),
        ("USER", Align::Right),
        ("OPERATION", Align::Left),
        ("VERDICT", Align::Left),
    ];
    println!("{}", table::render(&columns, &rows));
    Ok(())
}

fn follow(client: &Client, mut entries: Vec<AuditEntry>, json: bool) -> Result<(), Stop> {
    let mut last = None;
    loop {
        for entry in &entries {
            if json {
                println!("{}", serde_json::to_string(entry)?);
            } else {
                let [number, _, pid, user, operation, verdict] = row(entry, entry.at_ns);
                println!("{number} pid {pid} user {user} {operation}: {verdict}");
            }
            last = Some(entry.sequence);
        }
        thread::sleep(LOOK_AGAIN);
        entries = client.audit_log(last)?;
    }
}

fn row(entry: &AuditEntry, now: u64) -> [String; 6] {
    let known = entry.process.is_some() && entry.pid != 0;
    [
        entry.sequence.to_string(),
        table::nanoseconds(now.saturating_sub(entry.at_ns)),
        if known { entry.pid.to_string() } else { "-".into() },
        if known { entry.uid.to_string() } else { "-".into() },
        Request::operation_of(entry.opcode).unwrap_or("-").into(),
        verdict(&entry.verdict),
    ]
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Granted { to, kind, object, rights, badge } => {
            let badge = badge.map_or(String::new(), |badge| format!(", badge {badge}"));
            format!("granted {rights} on {kind} {object} to process {to}{badge}")
        }
        Verdict::Refused { denial, times } => {
            let name = Denial::name_of(*denial).unwrap_or("an unknown reason");
            let times = if *times == 1 { String::new() } else { format!(", {times} times") };
            format!("refused: {name} ({denial}){times}")
        }
        Verdict::Revoked { kind, object, count } => {
            format!("revoked {count} derived from {kind} {object}")
        }
        Verdict::Expired { kind, object, count } => {
            format!("expired: {count} on {kind} {object}")
        }
    }
}
