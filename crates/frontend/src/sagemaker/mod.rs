//! The two APIs of SageMaker: the runtime that SDKs call, and the contract that a container keeps with the platform.

mod container;
mod event_stream;
mod register;
mod runtime;
mod stream;

pub use container::sagemaker_router;
pub(crate) use register::{page as registered_page, parse as parse_registration};
pub(crate) use runtime::runtime_routes;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use inference::{Error, Result};

/// A name in a path, whose fault each API tells in its own shape.
type Segment = Result<Path<String>, PathRejection>;

/// The name.
///
/// # Errors
/// InvalidArgument when it is not UTF-8 once its escapes are read.
fn segment(segment: Segment) -> Result<String> {
    let name = segment.map(|Path(name)| name);
    name.map_err(|_| Error::invalid_argument("the name in the path is not UTF-8 once its escapes are read"))
}
