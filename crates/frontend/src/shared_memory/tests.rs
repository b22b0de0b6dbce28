//! Regions over real shared memory objects, and clients that pull them away.

use proptest::prelude::*;
use rustix::fs::{Mode, ftruncate};
use rustix::shm;

use super::*;

mod cuda;

/// On a machine without GPUs.
fn allowed(max_regions: usize) -> SharedMemory {
    SharedMemory::allowed(max_regions, Err(Error::unsupported("there is no driver")))
}

/// An object that goes away with the test.
struct Shared {
    key: String,
    file: std::os::fd::OwnedFd,
}

impl Shared {
    fn new(content: &[u8]) -> Shared {
        let key = format!("/panoply-test-{}", uuid::Uuid::new_v4());
        let flags = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
        let file = shm::open(key.as_str(), flags, Mode::RUSR | Mode::WUSR).expect("an object");
        ftruncate(&file, content.len() as u64).expect("room");
        rustix::io::pwrite(&file, content, 0).expect("written");
        Shared { key, file }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = shm::unlink(self.key.as_str());
    }
}

fn place(region: &str, offset: u64, byte_size: u64) -> Place {
    Place { region: region.to_owned(), offset, byte_size }
}

#[test]
fn a_region_is_read_and_written_within_its_bounds() {
    let shared = Shared::new(b"0123456789");
    let memory = allowed(2);
    memory.system_register("r", &shared.key, 2, 6).expect("within the object");
    // As shm_open: the slash may be missing.
    memory.system_register("all", &shared.key[1..], 0, 10).expect("within the object");
    let window = memory.find(&place("r", 1, 4)).expect("within the region");
    let read = window.read().expect("there");
    assert_eq!(read, "3456");
    assert_eq!(read.as_ptr().addr() % 64, 0);
    window.write(b"abc").expect("there");
    assert_eq!(memory.find(&place("all", 0, 10)).expect("all").read().expect("there"), "012abc6789");

    for (offset, size, part) in [(6, 1, "Invalid offset for"), (5, 2, "Invalid offset + byte size for")] {
        let error = memory.find(&place("r", offset, size)).expect_err("outside");
        assert_eq!(error.message(), format!("{part} shared memory region: 'r'"));
    }
    assert!(memory.find(&place("r", 1, u64::MAX)).is_err());
    let names: Vec<String> = memory.system_status("").expect("all").into_iter().map(|region| region.name).collect();
    assert_eq!(names, ["all", "r"]);
}

#[test]
fn what_cannot_be_registered_is_told_as_triton_tells_it() {
    let shared = Shared::new(&[0; 16]);
    let memory = allowed(1);
    for key in ["/no-such-object", "", "/", "/../passwd", "a/b", "/."] {
        let error = memory.system_register("r", key, 0, 1).expect_err("no object");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{key}: {error}");
        assert!(error.message().starts_with(&format!("Unable to open shared memory region: '{key}'")), "{error}");
    }
    for (offset, size) in [(0, 17), (16, 1), (u64::MAX, 2), (0, u64::MAX), (0, 0)] {
        let error = memory.system_register("r", &shared.key, offset, size).expect_err("too much");
        assert!(error.message().starts_with("failed to register shared memory region 'r': invalid args"), "{error}");
    }
    memory.system_register("r", &shared.key, 0, 16).expect("fits");
    let error = memory.system_register("r", &shared.key, 0, 16).expect_err("twice");
    assert_eq!(error.message(), "shared memory region 'r' already in manager");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let error = memory.system_register("s", &shared.key, 0, 16).expect_err("one too many");
    assert!(error.message().contains("--max-client-shm-regions"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    memory.system_unregister("nope").expect("as Triton");
    memory.system_unregister("").expect("all");
    memory.system_register("s", &shared.key, 0, 16).expect("room again");
    let error = memory.system_status("r").expect_err("gone");
    assert_eq!(error.message(), "Unable to find system shared memory region: 'r'");
    assert_eq!(memory.find(&place("r", 0, 1)).expect_err("gone").kind(), ErrorKind::NotFound);
}

#[test]
fn an_object_that_is_cut_short_or_taken_away_is_an_error_and_no_more() {
    let shared = Shared::new(&[7; 8192]);
    let memory = allowed(1);
    memory.system_register("r", &shared.key, 0, 8192).expect("fits");
    let window = memory.find(&place("r", 0, 8192)).expect("there");
    memory.system_unregister("r").expect("known");
    drop(memory);
    assert_eq!(window.read().expect("requests at work keep it"), vec![7; 8192]);
    ftruncate(&shared.file, 100).expect("the client's right");
    for error in [window.read().expect_err("gone"), window.write(&[1; 8192]).expect_err("gone")] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("region 'r': the client's object is not as it was registered"), "{error}");
    }
    assert_eq!(rustix::fs::fstat(&shared.file).expect("open").st_size, 100, "the object does not grow by a write");
}

#[test]
fn where_it_is_off_everything_is_refused() {
    let memory = SharedMemory::off();
    let errors = [
        memory.system_register("r", "/r", 0, 1).expect_err("off"),
        memory.system_unregister("").expect_err("off"),
        memory.system_status("").map(drop).expect_err("off"),
        memory.find(&place("r", 0, 1)).map(drop).expect_err("off"),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("--allow-client-shm"), "{error}");
    }
}

#[test]
fn parameters_go_together() {
    let parts = |region: Option<&str>, offset, byte_size| {
        PlaceParts { region: region.map(str::to_owned), offset, byte_size }.place("x")
    };
    assert_eq!(parts(None, None, None).expect("not shared"), None);
    assert_eq!(parts(Some("r"), None, Some(4)).expect("complete"), Some(place("r", 0, 4)));
    let message = |parts: Result<Option<Place>>| parts.expect_err("incomplete").message().to_owned();
    let without = |name| format!("'{name}' can not be specified without '{REGION}' parameter for tensor 'x'");
    assert_eq!(message(parts(None, Some(1), None)), without(OFFSET));
    assert_eq!(message(parts(None, None, Some(1))), without(BYTE_SIZE));
    let expected = format!("'{BYTE_SIZE}' must be specified along with '{REGION}' parameter for tensor 'x'");
    assert_eq!(message(parts(Some("r"), None, None)), expected);
}

proptest! {
    #[test]
    fn no_place_reaches_outside_of_its_region(
        (start, size) in (0u64..1 << 40, 0u64..1 << 40),
        (offset, byte_size) in (prop_oneof![0u64..1 << 41, any::<u64>()], prop_oneof![0u64..1 << 41, any::<u64>()]),
    ) {
        if let Ok(begin) = place("r", offset, byte_size).within(start, size) {
            prop_assert!(begin >= start && begin + byte_size <= start + size);
        } else {
            prop_assert!(offset >= size || offset.checked_add(byte_size).is_none_or(|end| end > size));
        }
    }
}
