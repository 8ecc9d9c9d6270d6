//! Gateways in the config of the daemon.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bus_core::framing::Framing;
use bus_core::{Bus, LinkSpec, LinkState, Pipe, Restart, Unlink};
use bus_tests::eventually;

use crate::place::{kept, place, place_with, spec, writer};

#[test]
fn gateways_of_the_config_are_there_with_the_daemon_and_one_that_fails_stops_nobody() {
    let config = r#"
        [[link]]
        channel = "jobs"
        from_fifo = "{folder}/in"
        [[link]]
        channel = "jobs"
        to_command = "tr a-z A-Z > {folder}/copy"
        framing = "null"
        restart = "never"
        [[link]]
        channel = "other"
        from_fifo = "{folder}/busd.toml"
    "#;
    place_with("config", config, |place| {
        let state = |id: usize| place.bus.links().unwrap()[id].state;
        eventually("all are made", || {
            (state(0), state(1), state(2)) == (LinkState::Running, LinkState::Running, LinkState::Ended)
        });
        let links = place.bus.links().unwrap();
        assert!(links[2].note.contains("busd.toml is a regular file and no FIFO"), "{:?}", links[2]);
        assert_eq!((&links[1].spec.framing, links[1].spec.restart), (&Framing::null(), Restart::Never));
        writer(&place.fifo("in")).write_all(b"one\ntwo\n").unwrap();
        place.await_acknowledged("jobs", 2);
        place.daemon.end();
        assert_eq!(fs::read(place.path("copy")).unwrap(), b"ONE\0TWO\0");
        assert!(!place.path("in").exists());
    });
}

/// The config with one gateway in it, written by hand, and what belongs to nobody.
const CONFIG: &str = "# set by hand\nlinks_max = 9   # few\n\n[[link]] # mine\nchannel = \"mine\"\nfrom_fifo = '{folder}/mine'\n\n[channels.jobs]\ncapacity = 7 # exactly";

#[test]
fn a_kept_gateway_is_in_the_config_and_comes_back_with_the_daemon() {
    place_with("kept", CONFIG, |place| {
        let config = place.path("busd.toml");
        fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::read_to_string(&config).unwrap();
        let mut spec = kept(place, "jobs", Pipe::ToCommand(format!("cat > '{}'", place.path("copy").display())));
        (spec.framing, spec.restart) = (Framing::null(), Restart::Always);
        let link = place.bus.link(spec.clone()).unwrap();
        assert_eq!(place.info(&link).spec, spec);
        let now = fs::read_to_string(&config).unwrap();
        let table = now.strip_prefix(&before).unwrap();
        assert!(table.starts_with("\n\n[[link]]\nchannel = \"jobs\"\n"), "{table}");
        assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o7777, 0o640);
        let own: Vec<LinkSpec> = place.bus.links().unwrap().into_iter().map(|link| link.spec).collect();
        place.daemon.end();
        place.daemon.start_again();
        eventually("both are back", || {
            let links = place.bus.links().unwrap_or_default();
            links.len() == 2 && links.iter().all(|link| link.state == LinkState::Running)
        });
        let links = place.bus.links().unwrap();
        assert_eq!(links.iter().map(|link| link.spec.clone()).collect::<Vec<_>>(), own);
        place.send("jobs", ["one", "two"]);
        place.await_acknowledged("jobs", 2);
        place.unlink(&links[1]);
        assert_eq!(fs::read(place.path("copy")).unwrap(), b"one\0two\0");
        // The last line has an end now.
        assert_eq!(fs::read_to_string(&config).unwrap(), format!("{before}\n"));
        // For now is not for ever.
        place.bus.unlink_for_now(Unlink::Id(links[0].id)).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), format!("{before}\n"));
        let again = place.bus.link(links[0].spec.clone()).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), format!("{before}\n"));
        place.unlink(&again);
        let rest = "# set by hand\nlinks_max = 9   # few\n\n[channels.jobs]\ncapacity = 7 # exactly\n";
        assert_eq!(fs::read_to_string(&config).unwrap(), rest);
    });
}

#[test]
fn many_who_keep_gateways_at_once_lose_none() {
    place("kept at once", |place| {
        let names: Vec<String> = (0..12).map(|number| format!("fifo{number}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                let spec = kept(place, name, Pipe::FromFifo(place.fifo(name)));
                scope.spawn(|| Bus::connect_to(place.daemon.address()).unwrap().link(spec).unwrap());
            }
        });
        let text = fs::read_to_string(place.path("busd.toml")).unwrap();
        assert_eq!(text.matches("[[link]]").count(), names.len(), "{text}");
        assert!(names.iter().all(|name| text.contains(&format!("channel = \"{name}\"\n"))), "{text}");
        std::thread::scope(|scope| {
            for link in place.bus.links().unwrap() {
                scope.spawn(move || place.unlink(&link));
            }
        });
        assert_eq!(fs::read_to_string(place.path("busd.toml")).unwrap(), "");
    });
}

#[test]
fn a_link_to_the_config_stays_a_link() {
    place("linked config", |place| {
        let (config, target) = (place.path("busd.toml"), place.path("real.toml"));
        fs::rename(&config, &target).unwrap();
        symlink("real.toml", &config).unwrap();
        place.bus.link(kept(place, "jobs", Pipe::FromFifo(place.fifo("in")))).unwrap();
        assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("from_fifo"));
    });
}

#[test]
fn what_cannot_be_kept_is_not_made_and_what_cannot_be_forgotten_stays() {
    place("not kept", |place| {
        let config = place.path("busd.toml");
        let link = place.bus.link(kept(place, "stays", Pipe::FromFifo(place.fifo("stays")))).unwrap();
        let good = fs::read_to_string(&config).unwrap();
        let fifo = place.fifo("in");
        let is_refused = |text: &str, mode: u32, part: &str| {
            fs::write(&config, text).unwrap();
            fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
            let refusal = place.bus.link(kept(place, "jobs", Pipe::FromFifo(fifo.clone()))).unwrap_err().to_string();
            assert!(refusal.contains(part) && refusal.contains(config.to_str().unwrap()), "{refusal}");
            assert!(!Path::new(&fifo).exists());
            let refusal = place.bus.unlink(Unlink::Id(link.id)).unwrap_err().to_string();
            assert!(refusal.starts_with("nothing is unlinked") && refusal.contains(part), "{refusal}");
            assert_eq!(place.info(&link).state, LinkState::Running);
            assert_eq!(fs::read_to_string(&config).unwrap(), text);
            fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        };
        is_refused("links_max = \n", 0o600, "busd.toml:1:13: ");
        is_refused("windows = 1\n", 0o600, "unknown field `windows`");
        is_refused(&good, 0o400, "Permission denied");
        is_refused(&good, 0o602, "anybody may write to it");
        fs::remove_file(&config).unwrap();
        let refusal = place.bus.link(kept(place, "jobs", Pipe::FromFifo(fifo.clone()))).unwrap_err().to_string();
        assert!(refusal.contains("No such file"), "{refusal}");
        fs::write(&config, &good).unwrap();
        // One that does not come up is not kept.
        fs::write(&fifo, "a file").unwrap();
        place.bus.link(kept(place, "jobs", Pipe::FromFifo(fifo.clone()))).unwrap_err();
        let receiver = place.receiver("taken");
        place.bus.link(kept(place, "taken", Pipe::ToCommand("cat".to_owned()))).unwrap_err();
        drop(receiver);
        assert_eq!(fs::read_to_string(&config).unwrap(), good);
        assert_eq!(place.bus.links().unwrap().len(), 1);
        place.unlink(&link);
        assert_eq!(fs::read_to_string(&config).unwrap(), "");
        let left: Vec<_> = fs::read_dir(place.daemon.folder()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_str().unwrap().ends_with(".new")), "{left:?}");
    });
}

#[test]
fn a_daemon_without_a_config_file_keeps_nothing_and_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let address = bus_core::Address::new(folder.path().join("bus.sock")).unwrap();
    let config = bus_daemon::Config { socket: Some(address.clone()), ..bus_daemon::Config::default() };
    let daemon = bus_daemon::Daemon::start(config).unwrap();
    let bus = Bus::connect_to(&address).unwrap();
    let mut spec = spec("jobs", Pipe::FromFifo(folder.path().join("in").to_str().unwrap().to_owned()));
    spec.keep = true;
    let refusal = bus.link(spec).unwrap_err().to_string();
    assert!(refusal.contains("without a config file") && refusal.contains("busd --config PATH"), "{refusal}");
    assert!(!folder.path().join("in").exists() && bus.links().unwrap().is_empty());
    daemon.shutdown().unwrap();
}
