//! Ends that come: hello, refusals, types, the seat and the line.

use bus_core::Peers;
use bus_core::wire::{
    HEADER_BYTES, Hello, Kind, ReceiverHello, RefusedCode, Role, SenderHello, WelcomeRole, put_control,
};

use crate::bench::{Bench, Heard, UID, declares, receiver_hello, sender_hello};

#[test]
fn a_sender_learns_its_window_and_a_receiver_that_it_has_the_seat() {
    let bench = Bench::with(|rules| rules.window_messages = 12);
    let sender = bench.sender("jobs");
    assert_eq!((sender.welcome.window_messages, sender.welcome.receivers, sender.welcome.exact), (12, 0, false));
    let receiver = bench.receiver("jobs");
    assert_eq!(receiver.welcome.place_in_line, 0);
    assert_eq!(bench.sender("jobs").welcome.receivers, 1);
}

#[test]
fn two_senders_have_different_ids_and_tokens() {
    let bench = Bench::new();
    let (first, second) = (bench.sender("jobs"), bench.sender("jobs"));
    assert_ne!(first.id(), second.id());
    assert_ne!(first.welcome.token, second.welcome.token);
}

#[test]
fn the_first_frame_must_be_a_hello() {
    let bench = Bench::new();
    let peer = bench.connect();
    peer.say(Kind::Goodbye, &());
    let refused = peer.hear_refusal();
    assert_eq!(refused.code, RefusedCode::Protocol);
    assert!(refused.text.contains("Goodbye"), "{}", refused.text);
    assert!(peer.closed().is_some());
}

#[test]
fn a_second_hello_closes_the_peer() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.peer.hello(Role::Control);
    assert!(matches!(sender.peer.hear(), Heard::Closing(_)));
    assert!(sender.peer.closed().is_some());
}

#[test]
fn another_protocol_version_is_refused_with_both_versions() {
    let bench = Bench::new();
    let peer = bench.connect();
    let mut frame = Vec::new();
    put_control(Kind::Hello, &Hello { name: String::new(), pid: 1, role: Role::Control, clock: 0 }, &mut frame);
    frame[2] = 9;
    peer.say_bytes(frame);
    let refused = peer.hear_refusal();
    assert_eq!(refused.code, RefusedCode::Version);
    assert!(refused.text.contains('9') && refused.text.contains('1'), "{}", refused.text);
}

#[test]
fn a_refused_peer_that_goes_on_is_told_once() {
    let bench = Bench::new();
    let peer = bench.connect();
    peer.give_room(0);
    for _ in 0..3 {
        peer.say_bytes(vec![0; HEADER_BYTES]);
    }
    peer.give_all_room();
    assert_eq!(peer.all_heard().len(), 1);
}

#[test]
fn another_user_is_denied_whatever_it_asks_for() {
    let bench = Bench::new();
    let _known = bench.sender("jobs");
    let stranger = bench.connect_as(UID + 1);
    let refused = stranger.hear_refusal();
    assert_eq!(refused.code, RefusedCode::Denied);
    stranger.hello(Role::Sender(sender_hello("jobs")));
    assert_eq!(stranger.all_heard(), []);
    assert!(stranger.closed().is_some());
}

#[test]
fn a_user_has_no_more_senders_than_connections_and_receivers_still_come_in() {
    let bench = Bench::with(|rules| rules.user_connections_max = 2);
    let (first, second) = (bench.sender("jobs"), bench.sender("jobs"));
    let third = bench.connect();
    third.hello(Role::Sender(sender_hello("jobs")));
    let refused = third.hear_refusal();
    assert_eq!(refused.code, RefusedCode::Limit);
    let text = "channel jobs gets no further sender: user 1000 has 3 connections, and the limit is 2: close some, or raise \
                per_user.connections_max";
    assert_eq!(refused.text, text);
    let receiver = bench.receiver("jobs");
    let _control = bench.control();
    // Whoever comes back in the place of its own connection is no further one.
    bench.resume("jobs", &second, 1);
    receiver.goodbye();
    first.goodbye();
}

#[test]
fn a_user_has_no_more_connections_than_the_limit_and_the_reserve() {
    let bench = Bench::with(|rules| rules.user_connections_max = 2);
    let all: Vec<_> = (0..18).map(|_| bench.control()).collect();
    let refused = bench.connect().hear_refusal();
    assert_eq!(refused.code, RefusedCode::Limit);
    assert!(refused.text.contains("19 connections") && refused.text.contains("limit is 2"), "{}", refused.text);
    all[0].peer.cut();
    bench.control();
}

#[test]
fn the_last_connections_of_the_daemon_are_not_for_senders() {
    let bench = Bench::with(|rules| rules.connections_max = 4);
    let _two = [bench.sender("jobs"), bench.sender("jobs")];
    let third = bench.connect();
    third.hello(Role::Sender(sender_hello("jobs")));
    let refused = third.hear_refusal();
    let text = "channel jobs gets no further sender: the daemon has 3 connections, and the limit for senders is 2: close \
                some, or raise connections_max";
    assert_eq!(refused.text, text);
    bench.receiver("jobs");
}

#[test]
fn a_user_has_no_more_channels_than_the_limit() {
    let bench = Bench::with(|rules| rules.user_channels_max = 1);
    let first = bench.sender("one");
    let peer = bench.connect();
    peer.hello(Role::Sender(sender_hello("two")));
    let refused = peer.hear_refusal();
    assert_eq!(refused.code, RefusedCode::Limit);
    let text = "channel two cannot be made: user 1000 has 1 channels, and the limit is 1: delete some, or raise \
                per_user.channels_max";
    assert_eq!(refused.text, text);
    let _same = bench.sender("one");
    first.goodbye();
    assert_eq!(bench.channels(), ["one"]);
}

#[test]
fn a_silent_connection_is_refused_when_its_time_is_up() {
    let bench = Bench::with(|rules| rules.hello_timeout_ms = 100);
    let silent = bench.connect();
    bench.wait_ms(99);
    assert_eq!(silent.all_heard(), []);
    bench.wait_ms(1);
    assert_eq!(silent.hear_refusal().code, RefusedCode::Limit);
    assert!(silent.closed().is_some());
}

#[test]
fn a_second_receiver_is_refused_with_the_holder() {
    let bench = Bench::new();
    let _holder = bench.receiver("jobs");
    let peer = bench.connect();
    peer.hello(Role::Receiver(receiver_hello("jobs")));
    let refused = peer.hear_refusal();
    assert_eq!(refused.code, RefusedCode::ReceiverTaken);
    assert!(refused.text.contains("tester") && refused.text.contains("100"), "{}", refused.text);
}

#[test]
fn receivers_in_line_take_the_seat_in_turn() {
    let bench = Bench::new();
    let holder = bench.receiver("jobs");
    let (second, third) = (bench.standby("jobs"), bench.standby("jobs"));
    assert_eq!((second.welcome.place_in_line, third.welcome.place_in_line), (1, 2));
    let sender = bench.sender("jobs");
    sender.send(1);
    assert_eq!(holder.values(), [1]);
    holder.peer.cut();
    assert_eq!(second.peer.hear(), Heard::Seated);
    assert_eq!(second.values(), [1]);
    assert_eq!(third.peer.all_heard(), []);
    second.goodbye();
    assert_eq!(third.peer.hear(), Heard::Seated);
    assert_eq!(third.values(), [1]);
}

#[test]
fn a_receiver_that_leaves_the_line_is_not_seated() {
    let bench = Bench::new();
    let holder = bench.receiver("jobs");
    let (second, third) = (bench.standby("jobs"), bench.standby("jobs"));
    second.goodbye();
    holder.goodbye();
    assert_eq!(third.peer.hear(), Heard::Seated);
}

#[test]
fn another_type_is_refused_naming_both_and_raw_ends_attach_to_any() {
    let bench = Bench::new();
    let _typed = bench.sender_hello(SenderHello { declares: declares("Job"), ..sender_hello("jobs") });
    let peer = bench.connect();
    peer.hello(Role::Receiver(ReceiverHello { declares: declares("Note"), ..receiver_hello("jobs") }));
    let refused = peer.hear_refusal();
    assert_eq!(refused.code, RefusedCode::TypeMismatch);
    assert!(refused.text.contains("Job") && refused.text.contains("Note"), "{}", refused.text);
    let _raw = bench.receiver("jobs");
}

#[test]
fn a_type_is_forgotten_when_the_channel_is_empty_and_unattended() {
    let bench = Bench::new();
    bench.create("jobs", bus_core::ChannelOptions::default());
    let typed = bench.sender_hello(SenderHello { declares: declares("Job"), ..sender_hello("jobs") });
    typed.goodbye();
    let _other = bench.sender_hello(SenderHello { declares: declares("Note"), ..sender_hello("jobs") });
}

#[test]
fn a_refused_end_leaves_no_channel_behind() {
    let bench = Bench::new();
    let peer = bench.connect();
    let too_long = "t".repeat(300);
    peer.hello(Role::Sender(SenderHello { declares: declares(&too_long), ..sender_hello("jobs") }));
    assert_eq!(peer.hear_refusal().code, RefusedCode::Limit);
    assert_eq!(bench.channels(), [""; 0]);
}

#[test]
fn ends_that_watch_are_told_of_the_peers() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.peer.say(Kind::Watch, &());
    assert_eq!(sender.peer.hear(), Heard::Peers(Peers::new(1, 0)));
    let receiver = bench.receiver("jobs");
    assert_eq!(sender.peer.hear(), Heard::Peers(Peers::new(1, 1)));
    let second = bench.sender("jobs");
    assert_eq!(sender.peer.hear(), Heard::Peers(Peers::new(2, 1)));
    second.goodbye();
    receiver.goodbye();
    assert_eq!(sender.peer.all_heard(), [Heard::Peers(Peers::new(1, 1)), Heard::Peers(Peers::new(1, 0))]);
}

#[test]
fn senders_that_require_a_receiver_are_told_when_it_goes() {
    let bench = Bench::new();
    let receiver = bench.receiver("jobs");
    let sender = bench.sender_hello(SenderHello { require_receiver: true, ..sender_hello("jobs") });
    assert_eq!(sender.welcome.receivers, 1);
    sender.peer.all_heard();
    receiver.peer.cut();
    assert_eq!(sender.peer.hear(), Heard::Receivers(0));
}

#[test]
fn a_long_name_is_cut_at_a_character() {
    let bench = Bench::new();
    let peer = bench.connect();
    let name = "é".repeat(40);
    peer.say(Kind::Hello, &Hello { name, pid: 1, role: Role::Receiver(receiver_hello("jobs")), clock: 0 });
    let Heard::Welcome(welcome) = peer.hear() else { panic!("no welcome") };
    assert!(matches!(welcome.role, WelcomeRole::Receiver(_)));
    let second = bench.connect();
    second.hello(Role::Receiver(receiver_hello("jobs")));
    assert!(second.hear_refusal().text.contains(&format!(": {} (pid", "é".repeat(32))));
}
