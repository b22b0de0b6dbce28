//! panoply.
fn main() {}
