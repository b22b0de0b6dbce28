//! backend-text.
