//! GPUs whose memory is the host's: what stands behind the seam `DeviceMemory` in tests.

use std::sync::Arc;

use inference::{DeviceMapping, DeviceMemory, DeviceMemoryHandle, Error, Result};
use parking_lot::Mutex;

/// Some GPUs with nothing in their memory; clones are the same GPUs.
#[derive(Clone, Debug)]
pub struct FakeDevices {
    count: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    allocations: Vec<Allocation>,
    /// Of each mapping that was ever opened, how often it was closed.
    closed: Vec<u32>,
}

#[derive(Debug)]
struct Allocation {
    ordinal: u32,
    content: Vec<u8>,
}

impl FakeDevices {
    /// So many GPUs.
    pub fn new(count: u32) -> Self {
        FakeDevices { count, state: Arc::default() }
    }

    /// What a client does: allocates memory on a GPU, fills it, and exports it.
    pub fn allocate(&self, ordinal: u32, content: &[u8]) -> DeviceMemoryHandle {
        assert!(ordinal < self.count, "no such GPU");
        let allocations = &mut self.state.lock().allocations;
        allocations.push(Allocation { ordinal, content: content.to_vec() });
        let mut handle = [0xa5; DeviceMemoryHandle::SIZE];
        handle[..8].copy_from_slice(&(allocations.len() as u64 - 1).to_le_bytes());
        DeviceMemoryHandle(handle)
    }

    /// What the client finds in its memory.
    pub fn content(&self, handle: &DeviceMemoryHandle) -> Vec<u8> {
        let position = position(handle).expect("a handle of these GPUs");
        self.state.lock().allocations[position].content.clone()
    }

    /// How many mappings were ever opened.
    pub fn opened(&self) -> usize {
        self.state.lock().closed.len()
    }

    /// How many mappings are open.
    pub fn open(&self) -> usize {
        self.state.lock().closed.iter().filter(|times| **times == 0).count()
    }

    /// Whether no mapping was closed more than once.
    pub fn none_was_closed_twice(&self) -> bool {
        self.state.lock().closed.iter().all(|times| *times <= 1)
    }
}

fn position(handle: &DeviceMemoryHandle) -> Option<usize> {
    let (number, rest) = handle.0.split_first_chunk::<8>()?;
    let is_ours = rest.iter().all(|byte| *byte == 0xa5);
    is_ours.then(|| usize::try_from(u64::from_le_bytes(*number)).ok()).flatten()
}

impl DeviceMemory for FakeDevices {
    fn open(&self, handle: &DeviceMemoryHandle, ordinal: u32) -> Result<Box<dyn DeviceMapping>> {
        if ordinal >= self.count {
            return Err(Error::invalid_argument(format!("there is no GPU {ordinal}, only {}", self.count)));
        }
        let mut state = self.state.lock();
        let found = position(handle).and_then(|position| Some((position, state.allocations.get(position)?)));
        match found {
            Some((allocation, known)) if known.ordinal == ordinal => {
                let size = known.content.len() as u64;
                let number = state.closed.len();
                state.closed.push(0);
                Ok(Box::new(Mapping { state: self.state.clone(), number, allocation, size }))
            }
            _ => Err(Error::invalid_argument(format!("no memory by this handle on GPU {ordinal}"))),
        }
    }
}

#[derive(Debug)]
struct Mapping {
    state: Arc<Mutex<State>>,
    number: usize,
    allocation: usize,
    size: u64,
}

impl Mapping {
    fn with<T>(&self, start: u64, length: usize, work: impl FnOnce(&mut [u8]) -> T) -> Result<T> {
        let mut state = self.state.lock();
        assert_eq!(state.closed[self.number], 0, "memory is used that is not mapped any more");
        let content = &mut state.allocations[self.allocation].content;
        let bytes = usize::try_from(start).ok().and_then(|start| content.get_mut(start..start.checked_add(length)?));
        bytes.map(work).ok_or_else(|| Error::invalid_argument("outside of the memory"))
    }
}

impl DeviceMapping for Mapping {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, start: u64, buffer: &mut [u8]) -> Result<()> {
        self.with(start, buffer.len(), |bytes| buffer.copy_from_slice(bytes))
    }

    fn write(&self, start: u64, data: &[u8]) -> Result<()> {
        self.with(start, data.len(), |bytes| bytes.copy_from_slice(data))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.state.lock().closed[self.number] += 1;
    }
}
