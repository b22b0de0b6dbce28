//! Regions of GPUs' memory, with GPUs whose memory is the host's.

use std::collections::BTreeMap;

use inference::DeviceMemoryHandle;
use test_util::FakeDevices;

use super::*;

fn sharing(devices: &FakeDevices, max_regions: usize) -> SharedMemory {
    SharedMemory::allowed(max_regions, Ok(Arc::new(devices.clone())))
}

async fn register(memory: &SharedMemory, name: &str, handle: DeviceMemoryHandle, gpu: i64, size: u64) -> Result<()> {
    memory.cuda_register(name.to_owned(), handle, gpu, size).await
}

#[tokio::test]
async fn memory_of_a_gpu_is_read_and_written_within_its_bounds() {
    let devices = FakeDevices::new(2);
    let handle = devices.allocate(1, b"0123456789");
    let memory = sharing(&devices, 4);
    register(&memory, "r", handle, 1, 6).await.expect("within the allocation");
    let window = memory.find(&place("r", 1, 4)).expect("within the region");
    assert!(window.waits());
    assert_eq!(window.read().expect("there"), "1234");
    window.write(b"abc").expect("there");
    assert_eq!(devices.content(&handle), b"0abc456789");
    for (offset, size, part) in [(6, 1, "Invalid offset for"), (5, 2, "Invalid offset + byte size for")] {
        let error = memory.find(&place("r", offset, size)).expect_err("outside of the region, within the allocation");
        assert_eq!(error.message(), format!("{part} shared memory region: 'r'"));
    }
    let expected = CudaRegion { name: "r".to_owned(), device_id: 1, byte_size: 6 };
    assert_eq!(memory.cuda_status("").expect("all"), [expected]);
}

#[tokio::test]
async fn what_cannot_be_registered_is_told_and_leaves_nothing_open() {
    let devices = FakeDevices::new(2);
    let (handle, unknown) = (devices.allocate(0, &[0; 16]), DeviceMemoryHandle([7; 64]));
    let memory = sharing(&devices, 2);
    let opening = "failed to register shared memory region: invalid args";
    for (handle, gpu) in [(unknown, 0), (handle, 1), (handle, 2), (handle, -1), (handle, 1 << 40)] {
        let error = register(&memory, "r", handle, gpu, 16).await.expect_err("cannot be opened");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().starts_with(opening), "{error}");
    }
    for size in [0, 17, u64::MAX] {
        let error = register(&memory, "r", handle, 0, size).await.expect_err("no such size");
        assert!(error.message().starts_with("failed to register shared memory region 'r': invalid args"), "{error}");
    }
    assert_eq!(devices.open(), 0);
    register(&memory, "r", handle, 0, 16).await.expect("fits");
    register(&memory, "s", handle, 0, 8).await.expect("the same memory under another name");
    let error = register(&memory, "r", handle, 0, 16).await.expect_err("twice");
    assert_eq!(error.message(), "shared memory region 'r' already in manager");
    let error = register(&memory, "t", handle, 0, 16).await.expect_err("one too many");
    assert!(error.message().contains("--max-client-shm-regions"), "{error}");
    assert_eq!(devices.open(), 2);
}

#[tokio::test]
async fn both_kinds_share_their_names_and_nothing_else() {
    let devices = FakeDevices::new(1);
    let (handle, shared) = (devices.allocate(0, &[0; 16]), Shared::new(&[0; 16]));
    let memory = sharing(&devices, 9);
    memory.system_register("s", &shared.key, 0, 16).expect("fits");
    register(&memory, "c", handle, 0, 16).await.expect("fits");
    let taken = |name| format!("shared memory region '{name}' already in manager");
    assert_eq!(register(&memory, "s", handle, 0, 16).await.expect_err("taken").message(), taken("s"));
    assert_eq!(memory.system_register("c", &shared.key, 0, 16).expect_err("taken").message(), taken("c"));
    let error = memory.system_status("c").expect_err("of the other kind");
    let expected = "The region named 'c' is registered as CUDA shared memory, not system shared memory";
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, expected));
    let error = memory.cuda_status("s").expect_err("of the other kind");
    let expected = "The region named 's' is registered as system shared memory, not CUDA shared memory";
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, expected));
    assert_eq!(memory.cuda_status("x").expect_err("none").message(), "Unable to find cuda shared memory region: 'x'");
    memory.cuda_unregister("s").await.expect("no error");
    memory.system_unregister("c").expect("no error");
    memory.system_unregister("").expect("no error");
    assert_eq!((memory.system_status("").expect("all").len(), memory.cuda_status("").expect("all").len()), (0, 1));
    memory.cuda_unregister("").await.expect("no error");
    assert_eq!((memory.cuda_status("").expect("all").len(), devices.open()), (0, 0));
}

#[tokio::test]
async fn without_gpus_it_is_told_what_is_missing() {
    let memory = allowed(1);
    assert!(!memory.takes_cuda());
    let error = register(&memory, "c", DeviceMemoryHandle([0; 64]), 0, 1).await.expect_err("no GPU");
    let expected = "failed to register CUDA shared memory region: 'c', GPUs not supported: there is no driver";
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unsupported, expected));
    assert_eq!(memory.cuda_status("").expect("none"), []);
    memory.cuda_unregister("c").await.expect("as Triton");
    memory.cuda_unregister("").await.expect("as Triton");
    let off = SharedMemory::off();
    for error in [off.cuda_status("").expect_err("off"), off.cuda_unregister("").await.expect_err("off")] {
        assert!(error.message().contains("--allow-client-shm"), "{error}");
    }
}

/// What clients do, in some order.
#[derive(Clone, Debug)]
enum Step {
    Register {
        name: usize,
        allocation: usize,
        gpu: i64,
        size: u64,
    },
    Unregister(usize),
    UnregisterAll,
    /// A request begins that uses a region.
    Begin(usize),
    /// The oldest request ends.
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..NAMES.len(), 0..2usize, 0..3i64, 0..12u64)
            .prop_map(|(name, allocation, gpu, size)| Step::Register { name, allocation, gpu, size }),
        2 => (0..NAMES.len()).prop_map(Step::Unregister),
        1 => Just(Step::UnregisterAll),
        4 => (0..NAMES.len()).prop_map(Step::Begin),
        3 => Just(Step::End),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// One registration; requests that use it have a copy.
type Mapped = Arc<()>;

proptest! {
    /// Each registration opens its handle once, if it comes that far, and it is open exactly as long as it is registered or a request uses it.
    #[test]
    fn a_handle_is_opened_once_and_closed_once(steps in proptest::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let devices = FakeDevices::new(2);
        let handles = [devices.allocate(0, &[0; 8]), devices.allocate(1, &[0; 8])];
        let memory = sharing(&devices, 2);
        let mut registered: BTreeMap<&str, Mapped> = BTreeMap::new();
        let mut requests: std::collections::VecDeque<(Window, Mapped)> = std::collections::VecDeque::new();
        let mut all: Vec<std::sync::Weak<()>> = Vec::new();
        let mut opened = 0;
        for step in steps {
            match step {
                Step::Register { name, allocation, gpu, size } => {
                    let name = NAMES[name];
                    let is_free = !registered.contains_key(name) && registered.len() < 2;
                    let opens = is_free && gpu == allocation as i64 && size > 0;
                    let can = opens && size <= 8;
                    opened += usize::from(opens);
                    let done = runtime.block_on(register(&memory, name, handles[allocation], gpu, size));
                    prop_assert_eq!(done.is_ok(), can);
                    if can {
                        let mapped = Mapped::default();
                        all.push(Arc::downgrade(&mapped));
                        registered.insert(name, mapped);
                    }
                }
                Step::Unregister(name) => {
                    runtime.block_on(memory.cuda_unregister(NAMES[name])).expect("never refused");
                    registered.remove(NAMES[name]);
                }
                Step::UnregisterAll => {
                    runtime.block_on(memory.cuda_unregister("")).expect("never refused");
                    registered.clear();
                }
                Step::Begin(name) => {
                    let window = memory.find(&place(NAMES[name], 0, 1));
                    prop_assert_eq!(window.is_ok(), registered.contains_key(NAMES[name]));
                    requests.extend(window.ok().map(|window| (window, registered[NAMES[name]].clone())));
                }
                Step::End => {
                    if let Some((window, _mapped)) = requests.pop_front() {
                        window.read().expect("still mapped");
                    }
                }
            }
            let alive = all.iter().filter(|mapped| mapped.strong_count() > 0).count();
            prop_assert_eq!(devices.open(), alive);
            prop_assert_eq!(devices.opened(), opened);
            prop_assert!(devices.none_was_closed_twice());
        }
        drop((memory, requests));
        prop_assert_eq!(devices.open(), 0);
        prop_assert!(devices.none_was_closed_twice());
    }
}
