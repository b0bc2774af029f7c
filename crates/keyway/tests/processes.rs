//! Real processes: what they can do to each other, and what is left when they die.
//!
//! Every test has a broker in a process of its own, so that it can be killed and its descriptors counted. The other
//! processes are this program once more, each with a part to play.

#![cfg(feature = "embedded")]
// All of this file is tests; clippy's leave for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

#[path = "processes/authority.rs"]
mod authority;
#[path = "processes/clocks.rs"]
mod clocks;
#[path = "processes/confinement.rs"]
mod confinement;
#[path = "processes/deaths.rs"]
mod deaths;
#[path = "processes/kills.rs"]
mod kills;
#[path = "processes/players.rs"]
mod players;
#[path = "processes/readers.rs"]
mod readers;
#[path = "processes/scenes.rs"]
mod scenes;
#[path = "processes/signals.rs"]
mod signals;
#[path = "processes/sleepers.rs"]
mod sleepers;
#[path = "processes/stage.rs"]
mod stage;
#[path = "processes/toll.rs"]
mod toll;
#[path = "processes/victims.rs"]
mod victims;

/// Plays the other process when this file is started by one of its tests, and is nothing otherwise.
#[test]
fn the_other_process() {
    let Some(part) = players::part() else { return };
    match part.role.as_str() {
        "broker" => stage::serve(&part),
        "deriver" => authority::derive_and_pass_on(),
        "recipient" => authority::receive_and_use(),
        "two sessions" => authority::open_two_sessions(),
        "leaver" => authority::leave_everything(),
        "confined" => confinement::try_everything(),
        "confined parent" => confinement::let_a_child_speak(),
        "grandchild" => confinement::speak_on_an_inherited_socket(),
        "forger" => confinement::use_the_handle_of_another(),
        "idler" => confinement::idle(),
        "sender" => deaths::send_once_and_stay(),
        "giver" => deaths::give_a_capability_and_stay(),
        "refuser" => deaths::receive_nothing_and_stay(),
        "producer" => kills::produce(&part),
        "consumer" => kills::consume(&part),
        "server" => kills::serve_calls(),
        "caller" => kills::make_calls(),
        "reader" => readers::read_and_stay(&part),
        "accepter" => signals::accept_and_stay(),
        "refuser of actions" => signals::refuse_and_answer(),
        "waiter" => signals::wait_when_told(),
        "handler" => signals::handle(),
        "stamper" => clocks::send_when_told(),
        "slow sender" => sleepers::send_when_told(),
        "slow receiver" => sleepers::receive_when_told(),
        "survivor" => toll::survive(),
        "victim that sends" => victims::send_until_killed(&part),
        "victim that takes" => victims::take_until_killed(&part),
        role => panic!("no such role: {role}"),
    }
    std::process::exit(0);
}
