//! Files mapped into memory, and the values over them that a session takes as its weights.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::ptr::{self, NonNull};
use std::slice;

use ort::AsPointer;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::datatype;
use crate::metrics::MappedBytes;
use crate::skeleton::{Skeleton, Weight};
use crate::value::OwnedValue;

/// Where sessions find what a model in memory refers to.
const FOLDER_OF_EXTERNAL_DATA: &str = "session.model_external_initializers_file_folder_path";

/// A model file whose weights can stay where they are. The files must not change while this, or a session that was made of
/// it, exists.
pub(crate) struct MappableModel {
    skeleton: Skeleton,
    folder: PathBuf,
    /// The model's own file is `None`.
    files: BTreeMap<Option<String>, Mapping>,
}

impl MappableModel {
    /// Maps a model file and the files beside it that hold weights; reads no weight.
    ///
    /// # Errors
    /// Why its weights cannot be mapped.
    pub(crate) fn open(file: &Path) -> Result<Self, String> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize().map_err(|error| error.to_string())?;
        let name = file.file_name().and_then(|name| name.to_str()).ok_or("its file's name is not UTF-8")?;
        let own = Mapping::of(file)?;
        let skeleton = Skeleton::of(own.bytes(), name).map_err(|_| "its file is not understood")?;
        let mut files = BTreeMap::from([(None, own)]);
        for weight in &skeleton.weights {
            if !files.contains_key(&weight.file) {
                files.insert(weight.file.clone(), Mapping::of(&beside(&folder, weight)?)?);
            }
            let end = weight.offset.checked_add(weight.length);
            if end.is_none_or(|end| end > files[&weight.file].length as u64) {
                return Err(format!("its weight '{}' goes on past the end of its file", weight.name));
            }
        }
        if skeleton.weights.is_empty() {
            return Err("it has none that lie in a file as they are used".to_owned());
        }
        if skeleton.folded_bytes > skeleton.mapped_bytes() / 2 {
            return Err("most of them are not used as they are in the file".to_owned());
        }
        // What is not referred to is copied, and kept with the graph besides.
        if skeleton.model.len() as u64 > skeleton.mapped_bytes() {
            return Err("most of them do not lie in a file as they are used".to_owned());
        }
        Ok(MappableModel { skeleton, folder, files })
    }

    /// The model without its weights.
    pub(crate) fn skeleton(&self) -> &Skeleton {
        &self.skeleton
    }

    /// Tells a session to be made of [`Skeleton::model`] where its weights are. They must live longer than the session.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub(crate) fn lend(self, builder: SessionBuilder) -> ort::Result<(SessionBuilder, Vec<u8>, MappedWeights)> {
        // For optimisations, which look at weights before the session takes those that are lent.
        let folder = self.folder.to_str().ok_or_else(|| ort::Error::new("the model's folder is not UTF-8"))?;
        let builder = builder.with_config_entry(FOLDER_OF_EXTERNAL_DATA, folder)?;
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
        let mut values = Vec::with_capacity(self.skeleton.weights.len());
        for weight in self.skeleton.weights.iter().filter(|weight| is_usable(weight)) {
            let value = self.value(weight, &memory)?;
            let name = CString::new(&*weight.name).map_err(|_| ort::Error::new("a weight's name holds a NUL"))?;
            // SAFETY: builder, name and value are alive. The builder is this function's own; its pointer is `const` only
            // because the trait knows no other.
            unsafe {
                let options = builder.ptr().cast_mut();
                let status = (ort::api().AddInitializer)(options, name.as_ptr(), value.as_ptr());
                ort::Error::result_from_status(status)?;
            }
            values.push(value);
        }
        let counted = MappedBytes::new(self.skeleton.mapped_bytes());
        let files = self.files.into_values().collect();
        Ok((builder, self.skeleton.model, MappedWeights { _values: values, _files: files, _counted: counted }))
    }

    fn value(&self, weight: &Weight, memory: &MemoryInfo<'_>) -> ort::Result<OwnedValue> {
        let file = &self.files[&weight.file];
        let mut value = ptr::null_mut();
        // SAFETY: `open` has checked that the weight lies within the mapping, and its length is that of its shape. Both go
        // into one `MappedWeights`, in which the value is dropped first. Writing, which ONNX Runtime does not do to weights,
        // would change private pages.
        unsafe {
            ort::Error::result_from_status((ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                file.address.as_ptr().add(weight.offset as usize).cast::<c_void>(),
                weight.length as usize,
                weight.dims.as_ptr(),
                weight.dims.len(),
                datatype::to_onnx(weight.datatype),
                &mut value,
            ))?;
            OwnedValue::from_raw(value)
        }
    }
}

/// Whether this machine reads elements at any address, as ONNX Runtime does with external data: files seldom align them.
/// Elsewhere ONNX Runtime loads by itself what is not aligned.
fn is_usable(weight: &Weight) -> bool {
    let any_address = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    any_address || weight.datatype.size().is_some_and(|size| weight.offset.is_multiple_of(size as u64))
}

/// The file of external data, which must lie within the model's folder.
fn beside(folder: &Path, weight: &Weight) -> Result<PathBuf, String> {
    let name = Path::new(weight.file.as_deref().unwrap_or_default());
    let plain = name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let file = folder.join(name).canonicalize().ok().filter(|file| plain && file.starts_with(folder));
    file.ok_or_else(|| format!("its weight '{}' refers to '{}', which is not beside it", weight.name, name.display()))
}

/// What a session uses for as long as it lives.
pub(crate) struct MappedWeights {
    // Values point into files, so they come first and are dropped first.
    _values: Vec<OwnedValue>,
    _files: Vec<Mapping>,
    _counted: MappedBytes,
}

/// A whole file in memory, read when touched.
struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: it owns its pages, which nothing writes to.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn of(path: &Path) -> Result<Self, String> {
        let cannot = |error: std::io::Error| format!("'{}': {error}", path.display());
        let file = File::open(path).map_err(cannot)?;
        let length = file.metadata().map_err(cannot)?.len();
        let length = usize::try_from(length).ok().filter(|length| *length > 0).ok_or("a file of it is empty")?;
        // SAFETY: the kernel chooses where; pages are private, so that a stray write would harm nobody else.
        let address =
            unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE, &file, 0) };
        let address = address.map_err(|error| cannot(error.into()))?;
        let address = NonNull::new(address.cast()).ok_or("its file was mapped nowhere")?;
        Ok(Mapping { address, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is that long, lives as long as `self`, and its file does not change.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, unmapped once; what points into it is dropped before.
        let unmapped = unsafe { munmap(self.address.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "invariant: it is a mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{put_bytes, put_number};

    /// A TensorProto of FP32 whose elements are in one field: 4 for numbers of the message, 9 for raw bytes.
    fn tensor(name: &str, field: u64, elements: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, 1, elements);
        put_number(&mut out, 2, 1);
        put_bytes(&mut out, 8, name.as_bytes());
        put_bytes(&mut out, field, &vec![0; 4 * elements as usize]);
        out
    }

    #[test]
    fn weights_are_not_mapped_of_which_most_lie_in_the_file_otherwise_than_they_are_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("model.onnx");
        let open = |raw, not_raw| {
            let (mut graph, mut model) = (Vec::new(), Vec::new());
            put_bytes(&mut graph, 5, &tensor("raw", 9, raw));
            put_bytes(&mut graph, 5, &tensor("float_data", 4, not_raw));
            put_bytes(&mut model, 7, &graph);
            std::fs::write(&file, model).expect("written");
            MappableModel::open(&file)
        };
        let model = open(100_000, 1000).expect("most of them can be mapped");
        assert!(crate::host::expected(&model) < 400_000, "{}", crate::host::expected(&model));
        assert_eq!(
            open(1000, 100_000).err().expect("it would cost more"),
            "most of them do not lie in a file as they are used"
        );
    }
}
