//! instar
fn main() {}
