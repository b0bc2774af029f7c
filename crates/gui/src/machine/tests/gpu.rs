//! Grants of the GPU on a machine with a render node.

use super::*;
use crate::protocol::{Enforcer, GpuCapability, GpuGrant, GrantTerms, Revocation};

const LIMITS: GpuLimits = GpuLimits { memory_mb: 64, max_surfaces: 4 };

fn node() -> RenderNode {
    RenderNode { name: "renderD128".to_string(), card: "card0".to_string() }
}

fn with_node() -> World {
    World::with_facts(Some(node())).peopled()
}

fn request(client: u64) -> Request {
    Request::Document(request_gpu(client, LIMITS))
}

fn grant() -> GpuGrant {
    GpuGrant {
        capability: GpuCapability { memory_mb: 64, max_surfaces: 4 },
        surfaces: GrantTerms { memory: Enforcer::Bridge, revocation: Revocation::WithGrant },
        node: node(),
        node_terms: GrantTerms { memory: Enforcer::Nobody, revocation: Revocation::Irrevocable },
    }
}

fn end_node(client: u64) -> Effect {
    Effect::EndNode { client: ClientId(client) }
}

fn irrevocable(to: u64, holder: u64) -> Effect {
    notify(to, Event::Irrevocable { pid: pid(holder), node: "renderD128".to_string() })
}

#[test]
fn a_grant_waits_for_its_render_node_and_says_what_holds_of_it() {
    for client in [COMPOSITOR, APPLICATION] {
        let mut world = with_node();
        let effects = world.ask(client, request(client));
        let [Effect::OpenNode { ticket, client: holder }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(holder, ClientId(client));
        assert_eq!(world.backend(ticket, Ok(())), [answer_of(client, Answer::GpuGranted(grant()))]);
        world.surface(client, SMALL);
    }
}

#[test]
fn nobody_holds_what_is_being_opened_and_it_is_reserved_all_the_same() {
    let mut world = with_node();
    let ticket = world.ticket(APPLICATION, request(APPLICATION));
    assert!(!world.holds(APPLICATION, Capability::SurfaceManagement));
    let capability = Capability::GpuRendering { memory_mb: 1, max_surfaces: 1 };
    assert!(!world.holds(APPLICATION, capability));
    assert_eq!(world.answer(APPLICATION, create(APPLICATION, SMALL)), denied(DenialReason::Unauthorized));
    assert!(matches!(
        world.answer(APPLICATION, Request::Describe),
        Answer::Description(description) if description.gpu.is_none()
    ));
    for client in [APPLICATION, COMPOSITOR] {
        assert_eq!(world.answer(client, request(APPLICATION)), denied(DenialReason::AlreadyHeld));
    }
    assert_eq!(world.bridge.totals().reserved_mb, 64);
    world.backend(ticket, Ok(()));
    assert!(world.holds(APPLICATION, capability));
}

#[test]
fn what_linux_refuses_or_brings_too_late_is_no_grant() {
    let mut world = with_node();
    let ticket = world.ticket(APPLICATION, request(APPLICATION));
    let refused = Answer::Document(GuiResponse::Error { message: "no".to_string() });
    assert_eq!(world.backend(ticket, Err("no")), [answer_of(APPLICATION, refused)]);
    assert_eq!(world.bridge.totals().reserved_mb, 0);

    for result in [Ok(()), Err("no")] {
        let ticket = world.ticket(APPLICATION, request(APPLICATION));
        let late = denied(OtherDenial::DeadlinePassed.into());
        assert_eq!(world.expire(), [answer_of(APPLICATION, late)]);
        assert_eq!(world.bridge.totals().reserved_mb, 64);
        assert_eq!(world.answer(APPLICATION, request(APPLICATION)), denied(DenialReason::AlreadyHeld));
        let undone = if result.is_ok() { vec![end_node(APPLICATION)] } else { vec![] };
        assert_eq!(world.backend(ticket, result), undone);
        assert_eq!(world.bridge.totals().reserved_mb, 0);
    }
    world.carried_out(APPLICATION, request(APPLICATION));
}

#[test]
fn grants_that_wait_are_bounded_as_all_that_waits_is() {
    let mut world = with_node();
    for _ in 0..limits::PENDING_PER_CLIENT_MAX {
        world.ticket(COMPOSITOR, set_mode(CONNECTOR, MODE));
    }
    assert_eq!(world.answer(COMPOSITOR, request(COMPOSITOR)), denied(DenialReason::ResourceLimitExceeded));
    assert_eq!(world.bridge.totals().reserved_mb, 0);
}

#[test]
fn the_compositor_asks_for_an_application_which_alone_gets_the_node() {
    let mut world = with_node();
    let ticket = world.ticket(COMPOSITOR, request(APPLICATION));
    assert_eq!(
        world.backend(ticket, Ok(())),
        [notify(APPLICATION, Event::GpuGranted(grant())), answer_of(COMPOSITOR, granted_gpu(64, 4)),]
    );
    // One that has no lane cannot be sent any, and has the grant without.
    world.answer(COMPOSITOR, register(9));
    assert_eq!(world.answer(COMPOSITOR, request(9)), granted_gpu(64, 4));
}

#[test]
fn a_grant_that_ends_says_that_its_node_does_not() {
    let mut world = with_node();
    world.carried_out(APPLICATION, request(APPLICATION));
    let revoked = |capability| notify(APPLICATION, Event::Revoked { capability });
    let capability = Capability::GpuRendering { memory_mb: 64, max_surfaces: 4 };
    assert_eq!(
        world.ask(COMPOSITOR, unregister(APPLICATION)),
        [
            end_node(APPLICATION),
            irrevocable(COMPOSITOR, APPLICATION),
            irrevocable(APPLICATION, APPLICATION),
            revoked(capability),
            revoked(Capability::SurfaceManagement),
            notify(APPLICATION, Event::Unregistered),
            answer_of(COMPOSITOR, success()),
        ]
    );

    // With the compositor, which lives on, or is gone with its lane; its process may not be.
    world.answer(COMPOSITOR, register(APPLICATION));
    world.carried_out(APPLICATION, request(APPLICATION));
    world.carried_out(COMPOSITOR, request(COMPOSITOR));
    let effects = world.ask(COMPOSITOR, Request::Document(unregister_compositor(COMPOSITOR)));
    for expected in
        [end_node(APPLICATION), irrevocable(APPLICATION, APPLICATION), irrevocable(COMPOSITOR, COMPOSITOR)]
    {
        assert!(effects.contains(&expected), "{expected:?} in {effects:?}");
    }
    world.document(COMPOSITOR, register_compositor(COMPOSITOR));
    world.answer(COMPOSITOR, register(APPLICATION));
    world.carried_out(APPLICATION, request(APPLICATION));
    assert_eq!(world.gone(APPLICATION)[..2], [end_node(APPLICATION), irrevocable(COMPOSITOR, APPLICATION)]);
    world.carried_out(COMPOSITOR, request(COMPOSITOR));
    assert!(world.gone(COMPOSITOR).contains(&end_node(COMPOSITOR)));
}

#[test]
fn what_is_opened_for_a_holder_that_ended_is_ended_and_nothing_else_is() {
    let mut world = with_node();
    let late = world.ticket(COMPOSITOR, request(APPLICATION));
    assert_eq!(
        world.ask(COMPOSITOR, unregister(APPLICATION))[..2],
        [answer_of(COMPOSITOR, denied(DenialReason::Unauthorized)), notify(APPLICATION, Event::Unregistered),]
    );
    assert_eq!(world.bridge.totals().reserved_mb, 0);
    // Registered anew, it waits for that to be over.
    world.answer(COMPOSITOR, register(APPLICATION));
    assert_eq!(world.answer(APPLICATION, request(APPLICATION)), denied(DenialReason::AlreadyHeld));
    assert_eq!(world.backend(late, Ok(())), [end_node(APPLICATION)]);
    let ticket = world.ticket(APPLICATION, request(APPLICATION));
    let gone = world.gone(COMPOSITOR);
    let answered = answer_of(APPLICATION, denied(OtherDenial::CompositorGone.into()));
    assert!(gone.contains(&answered), "{gone:?}");
    assert_eq!(world.backend(ticket, Err("no")), []);
    world.gone(APPLICATION);
    world.gone(STRANGER);
    assert_eq!(world.bridge.totals(), Totals::default());
}
