//! The two APIs of SageMaker: the runtime that SDKs call, and the contract that a container keeps with the platform.

mod container;
mod register;
mod runtime;

pub use container::sagemaker_router;
pub(crate) use runtime::runtime_routes;
