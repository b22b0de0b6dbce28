//! backend-onnxruntime.
