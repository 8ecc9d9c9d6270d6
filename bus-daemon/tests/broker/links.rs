//! Orders about gateways, and how the daemon parts with the ends of one.

use bus_core::wire::{ClosingCode, Hello, Kind, ReceiverHello, RefusedCode, Reply, Request, Role};
use bus_core::{LinkSpec, Pipe, Unlink};

use crate::bench::{Bench, Heard, PID, name, receiver_hello, rules};

fn link() -> Request {
    Request::Link(Box::new(LinkSpec::new(name("jobs"), Pipe::FromCommand("id".to_owned()))))
}

fn refused(reply: Reply) -> (RefusedCode, String) {
    let Reply::Refused(refused) = reply else { panic!("not refused, but {reply:?}") };
    (refused.code, refused.text)
}

#[test]
fn nobody_but_the_daemons_own_user_and_root_has_commands_run_as_that_user() {
    let own = rules().allowed_uids[0];
    let bench = Bench::with(|rules| rules.allowed_uids.extend([0, own + 1]));
    for uid in [own, 0] {
        assert_eq!(bench.control_as(uid).ask(link()), Reply::Links(Vec::new()));
    }
    let other = bench.control_as(own + 1);
    for request in [link(), Request::Unlink(Unlink::Id(1))] {
        let (code, text) = refused(other.ask(request));
        assert_eq!(code, RefusedCode::Denied);
        assert!(text.starts_with(&format!("user {} may not link pipes or commands", own + 1)), "{text}");
    }
    assert_eq!(other.ask(Request::Links), Reply::Links(Vec::new()));
}

#[test]
fn a_daemon_that_ends_makes_no_gateway() {
    let bench = Bench::new();
    let control = bench.control();
    bench.begin_shutdown();
    assert_eq!(refused(control.ask(link())).0, RefusedCode::ShuttingDown);
    assert_eq!(control.ask(Request::Unlink(Unlink::Id(1))), Reply::Links(Vec::new()));
}

#[test]
fn an_end_that_is_parted_with_is_told_and_what_it_had_not_acknowledged_goes_to_the_next() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=3);
    assert_eq!(receiver.values(), [1, 2, 3]);
    receiver.claim(2);
    receiver.ack(1);
    bench.part_with("another");
    assert_eq!(receiver.peer.all_heard(), []);
    bench.part_with("test");
    assert!(matches!(receiver.peer.hear(), Heard::Closing(_)));
    assert!(sender.peer.all_heard().iter().any(|heard| matches!(heard, Heard::Closing(_))));
    receiver.peer.cut();
    sender.peer.cut();
    assert_eq!(bench.receiver("jobs").values(), [2, 3]);
}

#[test]
fn of_a_gateway_in_line_only_that_end_is_parted_with_and_not_the_seat_of_another() {
    let bench = Bench::new();
    let (sender, holder) = (bench.sender("jobs"), bench.receiver("jobs"));
    let in_line = bench.connect();
    let role = Role::Receiver(ReceiverHello { standby: true, ..receiver_hello("jobs") });
    in_line.say(Kind::Hello, &Hello { name: "gateway".to_owned(), pid: PID, role, clock: 0 });
    assert!(matches!(in_line.hear(), Heard::Welcome(_)));
    bench.part_with("gateway");
    let Heard::Closing(closing) = in_line.hear() else { panic!("it is not told") };
    assert_eq!(closing.code, ClosingCode::Kicked);
    sender.send(1);
    assert_eq!(holder.values(), [1]);
    assert!(!holder.peer.all_heard().iter().any(|heard| matches!(heard, Heard::Closing(_))));
}
