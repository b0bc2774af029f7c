//! Rules that show only from outside: whom the doors let in, and what becomes of a grant that nobody has taken yet.

use keyway::{
    Outgoing,
    bridge::{COMPOSITOR_SERVICE, DeviceId, GuiRequest, Pid, Request, SERVICE},
};
use keyway_gui::protocol::encode;
use keyway_seat::{CompositorRule, Options};

use crate::{
    application::Application,
    stage::{PATIENCE, Stage},
};

const STRANGER: u32 = 4242;

/// Only root can be another user; otherwise there is nothing to see here.
#[test]
fn who_may_be_the_compositor_is_whom_the_rules_name_whatever_the_door_was_given_to() {
    let stage = Stage::begin();
    if stage.owner.uid() != 0 {
        return;
    }
    drop(stage);
    let rules: [(&[CompositorRule], bool); 4] = [
        (&[], false),
        (&[CompositorRule::User(STRANGER + 1), CompositorRule::Executable("/bin/true".into())], false),
        (&[CompositorRule::User(STRANGER)], true),
        (&[CompositorRule::Group(STRANGER)], true),
    ];
    for (rules, lets_in) in rules {
        let stage = Stage::begin_with(Options { compositors: rules.to_vec(), ..Options::default() });
        let directory = tempfile::tempdir().unwrap();
        let mut stranger = Application::start_as(STRANGER, &stage.client(), directory.path());
        stranger.connect();
        assert_eq!(stranger.registers_as_compositor(), lets_in, "{rules:?}");
        let second = stage.stranger().register_compositor();
        assert_eq!(second.is_err(), lets_in, "{rules:?}");
    }
}

#[test]
fn an_input_device_that_was_granted_and_not_taken_cannot_be_taken_after_its_end() {
    let stage = Stage::begin();
    let client = stage.client();
    let _door = client.open_sender(&client.lookup(COMPOSITOR_SERVICE).unwrap()).unwrap();
    let mut caller = client.open_caller(&client.lookup(SERVICE).unwrap()).unwrap();
    let pid = Pid(client.pid());
    let mut ask = |request| {
        let bytes = encode(&Request::Document(request)).unwrap();
        caller.call(&Outgoing::bytes(&bytes), PATIENCE).unwrap()
    };
    ask(GuiRequest::RegisterCompositor { pid });
    let request = || GuiRequest::RequestInputDevice { pid, device: DeviceId(1) };
    let granted = ask(request()).capabilities.pop().unwrap().unwrap();
    ask(GuiRequest::UnregisterCompositor { pid });
    assert!(granted.claim().is_err(), "it is taken after its end");

    // While the grant lasts, it is.
    ask(GuiRequest::RegisterCompositor { pid });
    let granted = ask(request()).capabilities.pop().unwrap().unwrap();
    granted.claim().unwrap();
}
