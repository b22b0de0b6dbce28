//! The `pooling` backend: token embeddings and their mask in, one vector per row out.
//!
//! | parameter | default | means |
//! | --- | --- | --- |
//! | `mode` | `mean` | `mean` or `max` over the tokens whose mask is not 0, or `cls`: the first such token |
//! | `normalize` | `false` | scale each vector to length 1 (L2) |
//! | `embeddings`, `mask` | by type | the inputs' names |

mod config;
mod reduce;
#[cfg(test)]
mod tests;

use inference::{
    Backend, Batch, DataType, Device, Error, InferRequest, InferResponse, LoadedModel, MemoryUsage, ModelArtifact,
    ModelInstance, ModelName, NamedTensor, Placement, Result, Shape, Tensor,
};

use config::Config;
use reduce::{normalize, pool};

/// What an instance takes; it has no weights.
const MEMORY_BYTES: u64 = 4096;

/// Pools embeddings FP32 or FP16 [rows, tokens, width] over a mask INT64 or INT32 [rows, tokens] to FP32 [rows, width].
/// A row whose mask is 0 everywhere becomes all 0. It needs no model file.
#[derive(Debug, Default)]
pub struct PoolingBackend;

impl PoolingBackend {
    /// What configurations call it.
    pub const NAME: &'static str = "pooling";
}

impl Backend for PoolingBackend {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn estimate(&self, _: &ModelArtifact, _: u64, _: &Placement) -> MemoryUsage {
        MemoryUsage::on(Device::Host, MEMORY_BYTES)
    }

    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel> {
        let config = Config::of(&model.spec)?;
        let instance = || {
            let (config, model) = (config.clone(), model.spec.name.clone());
            Box::new(Pooling { model, config }) as Box<dyn ModelInstance>
        };
        let instances = placement.instances.iter().map(|_| instance()).collect();
        Ok(LoadedModel { instances, memory: MemoryUsage::on(Device::Host, MEMORY_BYTES) })
    }
}

struct Pooling {
    model: ModelName,
    config: Config,
}

/// Embeddings of this many bytes are pooled in some 100 µs.
const BRIEF_BYTES: usize = 512 << 10;

impl ModelInstance for Pooling {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        let named = |error: Error| error.with_model(&*self.model);
        batch.requests.iter().map(|request| self.answer(request).map_err(named)).collect()
    }

    fn is_brief(&self, batch: &Batch) -> bool {
        crate::input_bytes(batch) <= BRIEF_BYTES
    }
}

impl Pooling {
    fn answer(&self, request: &InferRequest) -> Result<InferResponse> {
        let config = &self.config;
        let (Some(embeddings), Some(mask)) = (request.input(&config.embeddings), request.input(&config.mask)) else {
            return Err(self.refuse("both inputs must be given"));
        };
        let (&[rows, tokens, width], &[mask_rows, mask_tokens]) = (&**embeddings.shape(), &**mask.shape()) else {
            let (got, mask) = (embeddings.shape(), mask.shape());
            return Err(self.refuse(&format!("expected embeddings [b,s,h] and a mask [b,s], got {got} and {mask}")));
        };
        if (rows, tokens) != (mask_rows, mask_tokens) {
            let (got, mask) = (embeddings.shape(), mask.shape());
            return Err(self.refuse(&format!("embeddings of shape {got} and a mask of shape {mask} do not fit")));
        }
        if tokens == 0 {
            // Also keeps [rows, 0, width], which has no bytes, from asking for rows times width of them.
            return Err(self.refuse("there are no tokens to pool; send at least one per row"));
        }
        let mask = read_mask(mask);
        let (tokens, columns) = (tokens as usize, width as usize);
        let mut vectors = vec![0f32; rows as usize * columns];
        match embeddings.datatype() {
            DataType::Fp16 => pool::<half::f16>(config.mode, embeddings.data(), &mask, tokens, columns, &mut vectors),
            _ => pool::<f32>(config.mode, embeddings.data(), &mask, tokens, columns, &mut vectors),
        }
        if config.normalize && columns > 0 {
            vectors.chunks_exact_mut(columns).for_each(normalize);
        }
        let tensor = Tensor::from_vec(Shape::from([rows, width]), vectors)?;
        Ok(InferResponse::new(vec![NamedTensor { name: config.output.clone(), tensor }]))
    }

    fn refuse(&self, why: &str) -> Error {
        Error::invalid_argument(format!("model '{}': {why}", self.model))
    }
}

/// Which tokens count. Read byte by byte, because the bytes may have any alignment.
fn read_mask(mask: &Tensor) -> Vec<bool> {
    match mask.datatype() {
        DataType::Int32 => mask.data().as_chunks::<4>().0.iter().map(|bytes| *bytes != [0; 4]).collect(),
        _ => mask.data().as_chunks::<8>().0.iter().map(|bytes| *bytes != [0; 8]).collect(),
    }
}
