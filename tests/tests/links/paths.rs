//! Where a FIFO may be.

use std::fs::{self, File};
use std::io::{Write as _, stderr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bus_core::{LinkState, Pipe};
use bus_tests::Daemon;

use crate::place::{kept, place, place_at, texts, writer};

#[test]
fn paths_that_are_no_safe_place_for_a_fifo_are_refused_with_the_reason() {
    place("bad paths", |place| {
        let before = place.descriptors_at_rest();
        let path = |name: &str| place.fifo(name);
        fs::write(path("file"), "precious").unwrap();
        symlink(path("file"), path("link")).unwrap();
        for name in ["open", "sticky", "real"] {
            fs::create_dir(path(name)).unwrap();
        }
        symlink(path("real"), path("turned")).unwrap();
        fs::set_permissions(path("open"), PermissionsExt::from_mode(0o777)).unwrap();
        fs::set_permissions(path("sticky"), PermissionsExt::from_mode(0o1777)).unwrap();
        fs::set_permissions(path("real"), PermissionsExt::from_mode(0o700)).unwrap();
        let foreign = path("real/loose");
        assert!(Command::new("mkfifo").args(["-m", "622", &foreign]).status().unwrap().success());
        for (fifo, reason) in [
            ("file", "is a regular file and no FIFO, and stays as it is"),
            ("link", "is a symbolic link, which is not followed"),
            ("real", "is a folder and no FIFO"),
            ("open/in", "has mode 0777, so others could put a FIFO of their own there"),
            ("sticky/in", "has mode 1777, so others could put a FIFO of their own there"),
            ("turned/in", "is a symbolic link, which could be turned elsewhere"),
            ("missing/in", "No such file or directory"),
            ("real/loose", "has mode 0622, so others can open it: run chmod 600 on it"),
        ] {
            for pipe in [Pipe::FromFifo(path(fifo)), Pipe::ToFifo(path(fifo))] {
                let refusal = place.refusal("jobs", pipe);
                assert!(refusal.contains(reason), "{fifo}: {refusal}");
            }
        }
        assert!(place.refusal("jobs", Pipe::FromFifo("in".to_owned())).contains("is relative: write it from /"));
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "precious");
        assert!(fs::metadata(&foreign).unwrap().file_type().is_fifo());
        assert!(place.bus.links().unwrap().is_empty());
        place.has_only(&before);
    });
}

#[test]
fn a_fifo_that_was_there_is_used_and_stays_and_one_that_was_replaced_is_left_alone() {
    place("own FIFOs", |place| {
        let (there, made) = (place.fifo("there"), place.fifo("made"));
        assert!(Command::new("mkfifo").args(["-m", "600", &there]).status().unwrap().success());
        let link = place.link("jobs", Pipe::FromFifo(there.clone()));
        let refusal = place.refusal("other", Pipe::ToFifo(there.clone()));
        assert!(refusal.contains(&format!("gateway {} has {there} for channel jobs", link.id)), "{refusal}");
        place.unlink(&link);
        assert!(fs::metadata(&there).unwrap().file_type().is_fifo());
        let link = place.link("jobs", Pipe::FromFifo(made.clone()));
        fs::remove_file(&made).unwrap();
        fs::write(&made, "another").unwrap();
        place.unlink(&link);
        assert_eq!(fs::read_to_string(&made).unwrap(), "another");
    });
}

#[test]
fn one_fifo_under_two_spellings_has_one_gateway() {
    place("two spellings", |place| {
        let link = place.link("jobs", Pipe::FromFifo(place.fifo("in")));
        let refusal = place.refusal("other", Pipe::ToFifo(place.fifo("./in").replace("/./", "//")));
        assert!(refusal.contains(&format!("gateway {} has ", link.id)), "{refusal}");
        assert!(place.path("in").exists());
    });
}

/// Writes until there is no room.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    loop {
        match file.write(&[0; 4_096]) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_disk_without_room_for_a_fifo_or_the_config_is_told_and_nothing_is_left_behind() {
    let daemon = match Daemon::start_on_small_disk() {
        Ok(daemon) => daemon,
        Err(reason) => {
            // Past what gathers the output of tests that succeed: else nobody would hear of it.
            let _ = writeln!(stderr(), "a test is skipped, as no small file system can be mounted here: {reason}");
            return;
        }
    };
    place_at("small disk", daemon, |place| {
        let small = place.daemon.small();
        let names = || {
            let files = fs::read_dir(&small).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = files.collect();
            names.sort();
            names
        };
        let inside = place.path("small").join("in").to_str().unwrap().to_owned();
        let keep = |fifo: &str| place.bus.link(kept(place, "jobs", Pipe::FromFifo(fifo.to_owned())));
        // All files that it can have.
        let fillers: Vec<PathBuf> = (0..8)
            .map(|number| small.join(format!("f{number}")))
            .take_while(|path| File::create(path).is_ok())
            .collect();
        let full = names();
        let refusal = place.refusal("jobs", Pipe::FromFifo(inside.clone()));
        assert!(refusal.contains(&format!("cannot make FIFO {inside}: No space left")), "{refusal}");
        assert!(refusal.contains("and 0 of 8 files are free on its file system"), "{refusal}");
        assert!(refusal.contains("choose a folder where this user may make files and has room"), "{refusal}");
        let refusal = keep(&place.fifo("outside")).unwrap_err().to_string();
        let config = place.path("small").join("busd.toml").to_str().unwrap().to_owned();
        let said = |refusal: &str| refusal.contains(&format!("cannot write config file {config}: No space left"));
        assert!(said(&refusal), "{refusal}");
        assert_eq!(names(), full);
        // Files enough, and no room in them.
        fillers.iter().for_each(|path| fs::remove_file(path).unwrap());
        fill(&small.join("filler"));
        let refusal = keep(&inside).unwrap_err().to_string();
        assert!(said(&refusal), "{refusal}");
        assert_eq!(names(), ["busd.toml", "filler"]);
        assert!(!place.path("outside").exists() && place.bus.links().unwrap().is_empty());
        // It goes on, and with room it all works.
        fs::remove_file(small.join("filler")).unwrap();
        let link = keep(&inside).unwrap();
        let receiver = place.receiver("jobs");
        writer(small.join("in").to_str().unwrap()).write_all(b"one\n").unwrap();
        assert_eq!(texts(&receiver, 1), ["one"]);
        fill(&small.join("filler"));
        // To take it out needs a new file, too, and there is no room for one; an empty one needs none.
        place.unlink(&link);
        assert_eq!(
            (names(), fs::read_to_string(small.join("busd.toml")).unwrap()),
            (vec!["busd.toml".to_owned(), "filler".to_owned()], String::new())
        );
    });
}

#[test]
fn a_fifo_that_was_removed_or_replaced_under_its_gateway_is_told() {
    place("gone FIFOs", |place| {
        let fifos = ["from", "to"].map(|name| place.fifo(name));
        let links =
            [place.link("a", Pipe::FromFifo(fifos[0].clone())), place.link("b", Pipe::ToFifo(fifos[1].clone()))];
        place.await_state(&links[1], LinkState::WaitingForReader);
        let mut open = writer(&fifos[0]);
        for (fifo, link) in fifos.iter().zip(&links) {
            assert_eq!(place.info(link).note, "");
            fs::remove_file(fifo).unwrap();
            let gone = format!("nobody can open FIFO {fifo} any more, ");
            let remedy = "unlink the gateway, and link it again";
            assert_eq!(place.info(link).note, format!("{gone}it was removed: {remedy}"));
            fs::write(fifo, "another").unwrap();
            assert_eq!(place.info(link).note, format!("{gone}a regular file has taken its place: {remedy}"));
            assert!(place.daemon.log().contains(&gone), "{}", place.daemon.log());
        }
        // Who has it open is served all the same.
        open.write_all(b"one\n").unwrap();
        assert_eq!(place.receiver("a").recv().unwrap(), b"one");
        links.iter().for_each(|link| drop(place.unlink(link)));
        assert!(fifos.iter().all(|fifo| fs::read_to_string(fifo).unwrap() == "another"));
    });
}
